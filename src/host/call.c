// SPDX-License-Identifier: MIT
/*
 * Requests of this process: submit and execute.  The thread that owns the ring
 * makes a job of a request itself; others leave it in an inbox and ring a bell.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include <urd/client.h>

#include "host/host.h"
#include "wire/mp.h"

/* Requests of other threads that wait to be taken. */
#define INBOX_MAX 65536u

/* ---- out ---- */

static void reply_text(const struct urd_job *job, char *text, size_t len)
{
	struct urd_span s;
	s64 code;

	text[0] = 0;
	if (job->code == URD_OK)
		return;
	if (job->code == URD_APP) {
		urd_fail_parse(job->error, &code, &s);
		if (s.len) {
			snprintf(text, len, "%.*s", (int)urd_min(s.len, (u32)len), s.p);
			return;
		}
	}
	snprintf(text, len, "%s%s%s", urd_code_text(job->code), job->detail ? ": " : "",
		 job->detail ? job->detail : "");
}

void host_answer(struct urd *urd, struct urd_job *job)
{
	struct urd_request *rq = job->owner;
	struct urd_reply reply = { .code = job->code, .executed = job->executed };
	char text[1024];

	reply_text(job, text, sizeof(text));
	reply.message = text;
	if (job->code == URD_OK) {
		reply.data = job->result.p;
		reply.len = job->result.len;
	} else if (job->code == URD_APP) {
		reply.data = job->error.p;
		reply.len = job->error.len;
	}
	rq->done(&reply, rq->arg);
	free(rq);
	urd_job_release(&urd->core, job, URD_HOLD_CALLER);
}

void host_chunk(struct urd *urd, struct urd_chunk *chunk)
{
	struct urd_request *rq = chunk->job->owner;

	if (chunk->kind == URD_CHUNK_DATA && rq && rq->call.chunk) {
		rq->call.chunk(chunk->data, chunk->len, rq->arg);
		urd_job_grant(chunk->job, 1);
	}
	urd_chunk_put(&urd->core, chunk);
}

/* ---- in ---- */

/* A request that gets no job is answered all the same. */
static void host_refuse(struct urd_request *rq, enum urd_code code)
{
	struct urd_reply reply = {
		.code = code,
		.executed = URD_EXECUTED_NO,
		.message = urd_code_text(code),
	};

	rq->done(&reply, rq->arg);
	free(rq);
}

void host_take(struct urd *urd, struct urd_request *rq)
{
	struct urd_core *core = &urd->core;
	const struct urd_call *call = &rq->call;
	size_t method_len = strlen(call->method);
	struct urd_pool *pool = urd->front.fallback;
	struct urd_job *job = urd_job_get(core);
	u8 *p;

	if (!job) {
		host_refuse(rq, URD_BUSY);
		return;
	}
	if (urd_arena_get(&core->arena, 2 * URD_HEADROOM + method_len + call->params_len,
			  &job->req)) {
		urd_job_release(core, job, URD_HOLD_CALLER);
		host_refuse(rq, URD_BUSY);
		return;
	}
	p = job->req.p + URD_HEADROOM;
	memcpy(p, call->method, method_len);
	job->method = (struct urd_span){ p, (u32)method_len };
	p += method_len;
	memcpy(p, call->params, call->params_len);
	job->params = p;
	job->params_len = (u32)call->params_len;
	job->origin = URD_ORIGIN_CALL;
	job->owner = rq;
	job->stream = call->chunk != NULL;
	if (call->traceparent)
		snprintf(job->trace, sizeof(job->trace), "%s", call->traceparent);
	if (call->deadline_ns && call->deadline_ns != URD_OFF)
		job->deadline_ns = urd_ns_add(core->now_ns, call->deadline_ns);
	if (call->pool)
		pool = urd_core_pool(core, (struct urd_span){ (const u8 *)call->pool,
							      (u32)strlen(call->pool) });
	if (pool)
		urd_pool_submit(pool, job);
	else
		urd_job_answer(core, job, URD_NO_POOL);
}

void host_doorbell(struct urd *urd)
{
	struct urd_list todo, *n;
	bool over, drain;
	u64 drain_ns;

	urd_list_init(&todo);
	pthread_mutex_lock(&urd->lock);
	while ((n = urd_list_pop(&urd->inbox)))
		urd_list_push(&todo, n);
	urd->inbox_nr = 0;
	over = urd->over;
	drain = urd->wants_drain && !over;
	drain_ns = urd->wants_drain_ns;
	pthread_mutex_unlock(&urd->lock);
	while ((n = urd_list_pop(&todo))) {
		struct urd_request *rq = urd_list_entry(n, struct urd_request, node);

		if (over)
			host_refuse(rq, URD_DRAINING);
		else
			host_take(urd, rq);
	}
	/* what was handed in before it is finished, and nothing comes after it */
	if (drain)
		host_drain(urd, drain_ns);
	if (!over && !urd->doorbell_op.cancelling && urd_op_is_idle(&urd->doorbell_op))
		urd_op_read(urd->core.ring, &urd->doorbell_op, urd->doorbell, &urd->doorbell_count,
			    sizeof(urd->doorbell_count), URD_NEVER);
}

static int call_check(const struct urd_call *call)
{
	size_t n = call->method ? strlen(call->method) : 0;

	if (!n || n > URD_METHOD_MAX || !call->params)
		return -EINVAL;
	if (call->params_len > URD_REQUEST_MAX)
		return -EMSGSIZE;
	if (urd_mp_len(call->params, call->params_len) != (s64)call->params_len)
		return -EINVAL;
	return 0;
}

static const char *copy_string(char **at, const char *s)
{
	char *p = *at;
	size_t n;

	if (!s)
		return NULL;
	n = strlen(s) + 1;
	memcpy(p, s, n);
	*at += n;
	return p;
}

static size_t string_size(const char *s)
{
	return s ? strlen(s) + 1 : 0;
}

/* The request with all that it points to, in one block. */
static struct urd_request *request_new(const struct urd_call *call, urd_done_fn done, void *arg)
{
	size_t size = sizeof(struct urd_request) + call->params_len + string_size(call->pool) +
		      string_size(call->method) + string_size(call->traceparent);
	struct urd_request *rq = malloc(size);
	char *at;

	if (!rq)
		return NULL;
	at = (char *)(rq + 1);
	rq->call = *call;
	rq->call.pool = copy_string(&at, call->pool);
	rq->call.method = copy_string(&at, call->method);
	rq->call.traceparent = copy_string(&at, call->traceparent);
	memcpy(at, call->params, call->params_len);
	rq->call.params = at;
	rq->done = done;
	rq->arg = arg;
	urd_list_init(&rq->node);
	return rq;
}

static int host_post(struct urd *urd, struct urd_request *rq)
{
	bool was_empty;
	int ret = 0;

	pthread_mutex_lock(&urd->lock);
	was_empty = urd_list_empty(&urd->inbox);
	if (urd->over || urd->wants_drain)
		ret = -ESHUTDOWN;
	else if (urd->inbox_nr >= INBOX_MAX)
		ret = -ENOBUFS;
	if (!ret) {
		urd_list_push(&urd->inbox, &rq->node);
		urd->inbox_nr++;
		if (was_empty)
			(void)eventfd_write(urd->doorbell, 1);
	}
	pthread_mutex_unlock(&urd->lock);
	if (ret)
		free(rq);
	return ret;
}

URD_API int urd_submit(struct urd *urd, const struct urd_call *call, urd_done_fn done, void *arg)
{
	struct urd_request *rq;
	int ret = call_check(call);

	if (ret)
		return ret;
	if (urd->flags & URD_OPEN_LOOP && !host_is_owner(urd))
		return -EPERM;
	rq = request_new(call, done, arg);
	if (!rq)
		return -ENOMEM;
	if (!host_is_owner(urd))
		return host_post(urd, rq);
	if (urd->draining) {
		free(rq);
		return -ESHUTDOWN;
	}
	host_take(urd, rq);
	return 0;
}

/* ---- execute ---- */

/* Where the answer is put for the thread that waits. */
struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct urd_reply *reply;
	bool over;
};

static struct urd_reply *reply_copy(const struct urd_reply *r)
{
	size_t text = strlen(r->message) + 1;
	struct urd_reply *copy = malloc(sizeof(*copy) + text + r->len);

	if (!copy)
		return NULL;
	*copy = *r;
	copy->message = memcpy(copy + 1, r->message, text);
	if (r->data)
		copy->data = memcpy((char *)(copy + 1) + text, r->data, r->len);
	return copy;
}

static void execute_done(const struct urd_reply *reply, void *arg)
{
	struct waiter *w = arg;
	struct urd_reply *copy = reply_copy(reply);

	pthread_mutex_lock(&w->lock);
	w->reply = copy;
	w->over = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

URD_API int urd_execute(struct urd *urd, const struct urd_call *call, struct urd_reply **reply)
{
	struct waiter w = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	int ret = urd_submit(urd, call, execute_done, &w);

	if (ret)
		return ret;
	if (host_is_owner(urd)) {
		urd_assert(urd->flags & URD_OPEN_LOOP); /* not from a urd_done_fn */
		while (!w.over)
			host_turn(urd, URD_NEVER);
	} else {
		pthread_mutex_lock(&w.lock);
		while (!w.over)
			pthread_cond_wait(&w.cond, &w.lock);
		pthread_mutex_unlock(&w.lock);
	}
	if (!w.reply)
		return -ENOMEM;
	*reply = w.reply;
	return 0;
}

URD_API void urd_reply_free(struct urd_reply *reply)
{
	free(reply);
}
