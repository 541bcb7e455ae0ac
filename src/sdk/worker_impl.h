/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the C worker share: worker.c (registration and the loop),
 * worker_req.c (what a handler may do with a request) and worker_io.c
 * (descriptors, signals, the control channel).  One thread, one request at a
 * time; nobody else includes this.
 */
#ifndef URD_WORKER_IMPL_H
#define URD_WORKER_IMPL_H

#include <urd/worker.h>

#include "base/base.h"
#include "sdk/stream.h"
#include "wire/rpc.h"

/* A version 00 traceparent has 55 bytes; later ones may be longer, not endless. */
#define TRACE_MAX 255u
/* Chunks that may be sent before the first control.credit. */
#define CREDIT_START 16u
/* JSON-RPC's numbers, by convention. */
#define CODE_NO_METHOD (-32601)
#define CODE_FAILED (-32603)

/**
 * struct urd_req - the request at hand
 * @w: its worker
 * @open: not answered yet
 * @credit: chunks that may still be sent
 */
struct urd_req {
	struct urd_worker *w;
	struct urd_span params;
	s64 deadline_ms;
	u32 msgid;
	u32 credit;
	u32 attempt;
	bool open;
	bool stream;
	bool cancelled;
	size_t method_len;
	char method[URD_METHOD_MAX + 1];
	char trace[TRACE_MAX + 1]; /* empty if there is none */
};

/** struct urd_handler - a method and who serves it */
struct urd_handler {
	struct urd_handler *next;
	urd_handler_fn fn;
	void *arg;
	char *method; /* NULL: any */
};

/**
 * struct urd_worker - a worker
 * @handlers: list in order of registration
 * @term_fd: readable once SIGTERM came; owned by the process, not by the worker
 * @broken: negative errno of a write that failed: nothing can be answered any more
 * @said_ready: control.ready went out
 * @term: SIGTERM was seen
 * @last: the one request that is served after SIGTERM was handed out
 * @control_fresh: the control stream has bytes that were not looked at
 */
struct urd_worker {
	struct urd_handler *handlers;
	struct urd_stream task;
	struct urd_stream control;
	u32 request_max;
	int task_in;
	int task_out;
	int control_in;
	int control_out;
	int term_fd;
	int broken;
	bool said_ready;
	bool term;
	bool last;
	bool control_fresh;
	struct urd_req req;
};

/** urd_worker_attach - find the descriptors, set close-on-exec and the signals; 0 or -errno */
int urd_worker_attach(struct urd_worker *w, const struct urd_worker_conf *conf) URD_MUST_CHECK;

/**
 * urd_worker_write - write a head and a body, all of it
 * @w: the worker; @w->broken is set if it fails
 * @fd: task_out or control_out
 *
 * Return: 0 or negative errno.
 */
int urd_worker_write(struct urd_worker *w, int fd, const void *head, size_t head_len,
		     const void *body, size_t body_len) URD_MUST_CHECK;

/**
 * urd_worker_notify - send a control message
 * @method: name
 * @params: one MessagePack value, packed
 *
 * Return: 0 or negative errno, -EMSGSIZE if it is more than the channel takes.
 */
int urd_worker_notify(struct urd_worker *w, const char *method,
		      struct urd_span params) URD_MUST_CHECK;

/**
 * urd_worker_listen - read the control channel and apply it to the request at hand
 * @timeout_ms: as poll(2) has it
 *
 * Return: 1 something was read, 0 nothing within the time, -EPIPE the channel is closed.
 */
int urd_worker_listen(struct urd_worker *w, int timeout_ms) URD_MUST_CHECK;

/**
 * urd_worker_fill - wait for bytes of a request, SIGTERM or the end
 *
 * Return: 1 look again, 0 the end, negative errno.
 */
int urd_worker_fill(struct urd_worker *w) URD_MUST_CHECK;

/** urd_req_init - take over a parsed request */
void urd_req_init(struct urd_req *req, struct urd_worker *w, const struct urd_msg *m);

#endif /* URD_WORKER_IMPL_H */
