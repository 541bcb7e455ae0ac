/* SPDX-License-Identifier: MIT */
/*
 * Write a worker in C.
 *
 *	static int echo(struct urd_req *req, void *arg)
 *	{
 *		return urd_req_reply(req, urd_req_params(req), urd_req_params_len(req));
 *	}
 *
 *	int main(void)
 *	{
 *		struct urd_worker *w = urd_worker_new(NULL);
 *
 *		urd_worker_on(w, "echo", echo, NULL);
 *		return urd_worker_run(w);
 *	}
 *
 * One thread runs the worker; nothing here may be called from another one.
 * Payloads are spans of MessagePack; encode and decode them as you like.
 */
#ifndef URD_WORKER_H
#define URD_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct urd_worker;
struct urd_req;

/**
 * struct urd_worker_conf - how the worker presents itself
 * @request_max: largest request payload accepted, in bytes; 0 means 64 MiB
 * @task_in: descriptor of requests; -1 takes the number from the environment
 * @task_out: descriptor of answers; -1 as above
 * @control_in: descriptor of control from urd; -1 as above
 * @control_out: descriptor of control to urd; -1 as above
 */
struct urd_worker_conf {
	size_t request_max;
	int task_in;
	int task_out;
	int control_in;
	int control_out;
};

/**
 * typedef urd_handler_fn - serve one request
 * @req: the request; valid until the handler returns
 * @arg: what was given to urd_worker_on()
 *
 * A handler that returns without having answered is answered for: with nil if
 * it returns 0, with an error of that code if it returns a negative errno.
 */
typedef int (*urd_handler_fn)(struct urd_req *req, void *arg);

/**
 * urd_worker_new - make a worker from the environment that urd gave it
 * @conf: NULL for the defaults
 *
 * Sets close-on-exec on the descriptors and ignores SIGINT and SIGPIPE; SIGTERM
 * ends urd_worker_run() after the request at hand.
 *
 * Return: the worker, or NULL with errno set (ENOENT: not started by urd).
 */
struct urd_worker *urd_worker_new(const struct urd_worker_conf *conf);

/**
 * urd_worker_on - serve a method
 * @w: the worker
 * @method: name, copied; NULL serves whatever has no handler of its own
 * @fn: the handler
 * @arg: handed to it
 *
 * Return: 0, -EEXIST, -ENOMEM.
 */
int urd_worker_on(struct urd_worker *w, const char *method, urd_handler_fn fn, void *arg);

/**
 * urd_worker_run - say ready, then serve until the end
 * @w: the worker; freed on return
 *
 * Return: an exit status for main(): 0 after a clean end, 1 after an error
 * (which is told on stderr).
 */
int urd_worker_run(struct urd_worker *w);

/**
 * urd_worker_ready - say ready; urd_worker_run() does it if you did not
 * @w: the worker
 *
 * Return: 0 or negative errno.
 */
int urd_worker_ready(struct urd_worker *w);

/**
 * urd_worker_next - raw loop: wait for the next request
 * @w: the worker
 * @req: set to the request, valid until the next call
 *
 * Return: 1 with a request, 0 at the end, negative errno.
 */
int urd_worker_next(struct urd_worker *w, struct urd_req **req);

/** urd_worker_free - free a worker that is not run */
void urd_worker_free(struct urd_worker *w);

/** urd_worker_retire - ask urd to replace this worker; Return: 0 or negative errno */
int urd_worker_retire(struct urd_worker *w);

/** urd_req_method - name of the method, NUL-terminated */
const char *urd_req_method(const struct urd_req *req);
/** urd_req_params - the params, one MessagePack value */
const void *urd_req_params(const struct urd_req *req);
/** urd_req_params_len - length of the params in bytes */
size_t urd_req_params_len(const struct urd_req *req);
/** urd_req_deadline_ms - milliseconds left, at the time of reading; -1 if unknown */
int64_t urd_req_deadline_ms(const struct urd_req *req);
/** urd_req_attempt - 1 for the first try */
unsigned int urd_req_attempt(const struct urd_req *req);
/** urd_req_trace - traceparent, or NULL */
const char *urd_req_trace(const struct urd_req *req);
/** urd_req_wants_stream - may urd_req_chunk() be used? */
bool urd_req_wants_stream(const struct urd_req *req);
/** urd_req_cancelled - has urd said that nobody waits for the answer? Does not block. */
bool urd_req_cancelled(struct urd_req *req);

/**
 * urd_req_reply - answer with a result
 * @req: a request not yet answered
 * @data: one MessagePack value
 * @len: its length in bytes
 *
 * Return: 0, -EALREADY (answered before), or negative errno of the write.
 */
int urd_req_reply(struct urd_req *req, const void *data, size_t len);

/**
 * urd_req_fail - answer with an error
 * @req: a request not yet answered
 * @code: a number of the application's
 * @message: text, UTF-8
 *
 * Return: as urd_req_reply().
 */
int urd_req_fail(struct urd_req *req, int code, const char *message);

/**
 * urd_req_chunk - send a part of a streamed answer; may wait for credit
 * @req: a request for which urd_req_wants_stream() holds
 * @data: one MessagePack value
 * @len: its length in bytes
 *
 * Return: 0, -ECANCELED (nobody wants the rest), or negative errno.
 */
int urd_req_chunk(struct urd_req *req, const void *data, size_t len);

/** urd_req_progress - report progress, one MessagePack value; Return: 0 or negative errno */
int urd_req_progress(struct urd_req *req, const void *data, size_t len);

/** urd_worker_heartbeat - say "still alive"; Return: 0 or negative errno */
int urd_worker_heartbeat(struct urd_worker *w);

#ifdef __cplusplus
}
#endif

#endif /* URD_WORKER_H */
