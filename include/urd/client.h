/* SPDX-License-Identifier: MIT */
/*
 * Call a running urd from C.
 *
 * Two ways.  Blocking: urd_client_call().  Pollable: urd_client_send() queues a
 * request, urd_client_fd() and urd_client_events() tell what to poll for,
 * urd_client_turn() moves bytes without blocking and hands out one answer.
 * A client belongs to one thread at a time.
 */
#ifndef URD_CLIENT_H
#define URD_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include <urd/wire.h>

#ifdef __cplusplus
extern "C" {
#endif

struct urd_client;

/**
 * struct urd_answer - what came back for one request
 * @msgid: the number that urd_client_send() gave
 * @code: URD_OK, URD_APP, or what went wrong
 * @executed: whether a worker ran it
 * @message: text for people, NUL-terminated; "" on success
 * @result: one MessagePack value: the result on success, else the error value
 * @result_len: its length in bytes
 *
 * Pointers are valid until the next call on the same client.
 */
struct urd_answer {
	uint32_t msgid;
	enum urd_code code;
	enum urd_executed executed;
	const char *message;
	const void *result;
	size_t result_len;
};

/**
 * struct urd_client_opts - per-request options; zero them for defaults
 * @deadline_ms: give up after so many milliseconds, 0 means never; also sent
 *	to urd, which passes what is left to the worker
 * @traceparent: W3C trace context, or NULL
 */
struct urd_client_opts {
	uint32_t deadline_ms;
	const char *traceparent;
};

/**
 * urd_client_open - connect
 * @address: "unix:/path", "/path", "tcp:host:port"
 * @client: set to the client
 *
 * Return: 0 or negative errno.
 */
int urd_client_open(const char *address, struct urd_client **client);

/** urd_client_close - close and free; NULL is fine */
void urd_client_close(struct urd_client *client);

/**
 * urd_client_call - send one request and wait for its answer
 * @client: the client; answers to earlier sends are kept for urd_client_turn()
 * @method: "pool/method" or "method"
 * @params: one MessagePack value
 * @params_len: its length in bytes
 * @opts: options or NULL
 * @answer: filled in
 *
 * Return: 0 if there is an answer (look at its code), -ETIMEDOUT, -EPIPE (the
 * connection ended; whether it was executed is not known), -EMSGSIZE.
 */
int urd_client_call(struct urd_client *client, const char *method, const void *params,
		    size_t params_len, const struct urd_client_opts *opts,
		    struct urd_answer *answer);

/**
 * urd_client_send - queue one request, never blocks
 * @client: the client
 * @method: as above
 * @params: as above; copied
 * @params_len: as above
 * @opts: options or NULL; deadline_ms is only passed on
 * @msgid: set to the number of the request
 *
 * Return: 0, -ENOBUFS (64 MiB are waiting to be written), -EMSGSIZE, -EPIPE.
 */
int urd_client_send(struct urd_client *client, const char *method, const void *params,
		    size_t params_len, const struct urd_client_opts *opts, uint32_t *msgid);

/** urd_client_fd - the descriptor to poll */
int urd_client_fd(const struct urd_client *client);
/** urd_client_events - poll(2) events of interest right now */
short urd_client_events(const struct urd_client *client);

/**
 * urd_client_turn - write and read what is possible, hand out one answer
 * @client: the client
 * @answer: filled in
 *
 * Return: 1 with an answer (call again, there may be more), 0 if none is
 * complete yet, negative errno if the connection is of no more use.
 */
int urd_client_turn(struct urd_client *client, struct urd_answer *answer);

/** urd_client_cancel - tell urd that nobody waits for @msgid; its answer still comes */
int urd_client_cancel(struct urd_client *client, uint32_t msgid);

/** urd_code_name - "BUSY" for URD_BUSY; "?" for an unknown code */
const char *urd_code_name(int code);
/** urd_code_text - one sentence for people */
const char *urd_code_text(int code);
/** urd_executed_name - "no", "maybe" or "yes" */
const char *urd_executed_name(enum urd_executed executed);

#ifdef __cplusplus
}
#endif

#endif /* URD_CLIENT_H */
