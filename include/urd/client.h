/* SPDX-License-Identifier: MIT */
/*
 * Call a running urd from C.
 *
 * Two ways.  Blocking: urd_client_call(), and urd_client_stream() for an answer
 * in chunks.  Pollable: urd_client_send() queues a request, urd_client_fd() and
 * urd_client_events() tell what to poll for, urd_client_turn() moves bytes without
 * blocking and hands out one answer, chunk or progress at a time.
 * A client belongs to one thread at a time.
 */
#ifndef URD_CLIENT_H
#define URD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <urd/wire.h>

#ifdef __cplusplus
extern "C" {
#endif

struct urd_client;

/** enum urd_kind - what came back */
enum urd_kind {
	URD_KIND_ANSWER,   /* the answer: the last that comes for its request */
	URD_KIND_CHUNK,	   /* a chunk of a streamed answer */
	URD_KIND_PROGRESS, /* how far the request has come, as the worker puts it */
};

/**
 * struct urd_answer - what came back for one request
 * @kind: the answer itself, or something before it
 * @msgid: the number that urd_client_send() gave
 * @code: URD_OK, URD_APP, or what went wrong; URD_OK before the answer
 * @executed: whether a worker ran it; URD_EXECUTED_MAYBE before the answer
 * @message: text for people, NUL-terminated; "" on success
 * @result: one MessagePack value: the result on success, else the error value; the
 *	chunk or the progress
 * @result_len: its length in bytes
 *
 * Pointers are valid until the next call on the same client.
 */
struct urd_answer {
	enum urd_kind kind;
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
 * @stream: chunks are welcome; a worker that has none to offer just answers
 * @progress: so is progress
 * @manual_credit: more chunks come only after urd_client_grant(); else each
 *	chunk that is handed out makes room for another one
 */
struct urd_client_opts {
	uint32_t deadline_ms;
	const char *traceparent;
	bool stream;
	bool progress;
	bool manual_credit;
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
 * @opts: options or NULL; stream and progress are for urd_client_stream()
 * @answer: filled in
 *
 * Return: 0 if there is an answer (look at its code), -ETIMEDOUT, -EPIPE (the
 * connection ended; whether it was executed is not known), -EMSGSIZE.
 */
int urd_client_call(struct urd_client *client, const char *method, const void *params,
		    size_t params_len, const struct urd_client_opts *opts,
		    struct urd_answer *answer);

/**
 * typedef urd_part_fn - takes what comes before an answer
 * @part: a chunk or progress, valid until it returns
 * @arg: as given to urd_client_stream()
 *
 * It may call urd_client_send(), urd_client_cancel() and urd_client_grant() on
 * the client, but nothing that reads.
 *
 * Return: 0 to go on, negative errno to give the request up.
 */
typedef int (*urd_part_fn)(const struct urd_answer *part, void *arg);

/**
 * urd_client_stream - send one request and wait for its answer, part by part
 * @client: as of urd_client_call()
 * @method: likewise
 * @params: likewise
 * @params_len: likewise
 * @opts: options or NULL; stream is taken as set
 * @fn: called for each chunk, and for progress if asked for
 * @arg: given to it
 * @answer: filled in with what comes after the chunks
 *
 * While @fn works no more than 16 chunks are on their way.
 *
 * Return: as urd_client_call(), or what @fn gave the request up with.
 */
int urd_client_stream(struct urd_client *client, const char *method, const void *params,
		      size_t params_len, const struct urd_client_opts *opts, urd_part_fn fn,
		      void *arg, struct urd_answer *answer);

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
 * urd_client_turn - write and read what is possible, hand out one answer or part
 * @client: the client
 * @answer: filled in
 *
 * Return: 1 with an answer (call again, there may be more), 0 if none is
 * complete yet, negative errno if the connection is of no more use.
 */
int urd_client_turn(struct urd_client *client, struct urd_answer *answer);

/**
 * urd_client_grant - take more chunks of a streamed answer
 * @client: the client
 * @msgid: a request with opts.stream that has no answer yet
 * @n: so many more than the 16 that each stream begins with; of more than 1024
 *	on their way urd keeps no count
 *
 * Needed with opts.manual_credit, and otherwise for a larger window.
 *
 * Return: 0, -ENOENT (no such stream), -EPIPE, -ENOMEM.
 */
int urd_client_grant(struct urd_client *client, uint32_t msgid, uint32_t n);

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
