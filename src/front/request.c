// SPDX-License-Identifier: MIT
/*
 * From a client's frame to a job, and from a job's outcome to the bytes of an
 * answer.  Params and results stay where they were received.
 */
#include <stdio.h>

#include <urd/client.h>

#include "front/front.h"
#include "wire/mp.h"

/* ---- in ---- */

/* Make the job this connection's; from here on it will be answered. */
static void conn_own(struct urd_conn *conn, struct urd_job *job, u32 msgid)
{
	job->origin = URD_ORIGIN_CONN;
	job->owner = conn;
	job->caller_msgid = msgid;
	urd_list_push(&conn->jobs, &job->caller);
	conn->jobs_nr++;
}

static bool map_flag(const struct urd_mp *map, const char *key)
{
	struct urd_mp v;
	bool b;

	return !urd_mp_find(map, key, &v) && !urd_mp_bool(&v, &b) && b;
}

static void job_read_meta(struct urd_job *job, struct urd_span meta)
{
	struct urd_mp map = { meta.p, meta.p + meta.len };
	struct urd_span s;
	struct urd_mp v;
	u64 ms;

	if (!urd_mp_find(&map, "deadline_ms", &v) && !urd_mp_uint(&v, &ms) &&
	    ms < URD_NEVER / NSEC_PER_MSEC)
		job->deadline_ns = urd_ns_add(job->arrived_ns, ms * NSEC_PER_MSEC);
	job->stream = map_flag(&map, "stream");
	job->progress = map_flag(&map, "progress");
	if (!urd_mp_find(&map, "traceparent", &v) && !urd_mp_str(&v, &s) &&
	    s.len < sizeof(job->trace)) {
		memcpy(job->trace, s.p, s.len);
		job->trace[s.len] = 0;
	}
}

/* Answer with the params themselves: nil goes before them. */
static void job_echo(struct urd_core *core, struct urd_job *job)
{
	job->res = job->req;
	job->req = (struct urd_buf){ 0 };
	job->body = job->params - 1;
	job->body[0] = 0xc0;
	job->body_len = job->params_len + 1;
	urd_job_answer(core, job, URD_OK);
}

static bool span_begins(struct urd_span s, const char *prefix)
{
	size_t n = strlen(prefix);

	return s.len >= n && !memcmp(s.p, prefix, n);
}

/* urd's own methods */
static void conn_builtin(struct urd_conn *conn, struct urd_job *job)
{
	if (urd_span_is(job->method, "urd.ping")) {
		job_echo(conn->front->core, job);
		return;
	}
	if (conn->admin && admin_request(conn, job))
		return;
	urd_job_detail(conn->front->core, job, "no such method: %.*s", (int)job->method.len,
		       (const char *)job->method.p);
	urd_job_answer(conn->front->core, job, URD_BAD_REQUEST);
}

/* Find the pool; what is left in job->method is what the worker sees. */
static struct urd_pool *conn_route(struct urd_conn *conn, struct urd_job *job)
{
	const u8 *slash = memchr(job->method.p, '/', job->method.len);
	struct urd_span name;

	if (!slash)
		return conn->front->fallback;
	name = (struct urd_span){ job->method.p, (u32)(slash - job->method.p) };
	job->method.len -= name.len + 1;
	job->method.p = slash + 1;
	return urd_core_pool(conn->front->core, name);
}

static void conn_submit(struct urd_conn *conn, struct urd_job *job)
{
	struct urd_core *core = conn->front->core;
	struct urd_span name = job->method;
	struct urd_pool *pool;

	if (span_begins(job->method, "urd.")) {
		conn_builtin(conn, job);
		return;
	}
	if (conn->jobs_nr > conn->front->inflight_max) {
		urd_job_answer(core, job, URD_RATE);
		return;
	}
	pool = conn_route(conn, job);
	if (!pool) {
		urd_job_detail(core, job, "asked for %.*s", (int)(job->method.p - name.p - 1),
			       (const char *)name.p);
		urd_job_answer(core, job, URD_NO_POOL);
	} else if (!job->method.len) {
		urd_job_detail(core, job, "the method has no name");
		urd_job_answer(core, job, URD_BAD_REQUEST);
	} else {
		urd_pool_submit(pool, job);
	}
}

/* urd.cancel [msgid] and urd.credit [msgid, n] */
static void conn_notified(struct urd_conn *conn, const struct urd_msg *msg)
{
	struct urd_mp m = { msg->params.p, msg->params.p + msg->params.len };
	bool cancel = urd_span_is(msg->method, "urd.cancel");
	bool credit = urd_span_is(msg->method, "urd.credit");
	struct urd_job *job;
	u64 msgid, more = 0;
	u32 n;

	if ((!cancel && !credit) || urd_mp_array(&m, &n) || n != (cancel ? 1 : 2) ||
	    urd_mp_uint(&m, &msgid) || (credit && urd_mp_uint(&m, &more)))
		return;
	urd_list_for_each(job, &conn->jobs, caller) {
		if (job->caller_msgid != msgid)
			continue;
		if (cancel)
			urd_job_cancel(conn->front->core, job);
		else
			urd_job_grant(job, (u32)urd_min(more, (u64)UINT32_MAX));
		return;
	}
}

/* It is no message, but perhaps it tells whose answer this would be. */
static int conn_malformed(struct urd_conn *conn, struct urd_frame *f, struct urd_job *job)
{
	struct urd_core *core = conn->front->core;
	u32 msgid;
	int ret = urd_rpc_salvage(f->p, f->len, &msgid);

	urd_arena_put(&core->arena, &f->buf);
	if (ret) {
		urd_job_release(core, job, URD_HOLD_CALLER);
		return -EBADMSG;
	}
	conn_own(conn, job, msgid);
	urd_job_answer(core, job, URD_BAD_REQUEST);
	return 0;
}

int conn_request(struct urd_conn *conn, struct urd_frame *f, struct urd_job *job)
{
	struct urd_core *core = conn->front->core;
	struct urd_msg msg;

	if (urd_rpc_parse(f->p, f->len, &msg))
		return conn_malformed(conn, f, job);
	if (msg.tag != URD_TAG_REQUEST) {
		if (msg.tag == URD_TAG_NOTIFY)
			conn_notified(conn, &msg);
		urd_arena_put(&core->arena, &f->buf);
		urd_job_release(core, job, URD_HOLD_CALLER);
		return msg.tag == URD_TAG_NOTIFY ? 0 : -EBADMSG;
	}
	job->req = f->buf;
	job->params = f->p + (msg.params.p - f->p);
	job->params_len = msg.params.len;
	job->method = msg.method;
	if (msg.meta.len)
		job_read_meta(job, msg.meta);
	conn_own(conn, job, msg.msgid);
	conn_submit(conn, job);
	return 0;
}

/* ---- out ---- */

static void pack_result(struct urd_conn *conn, struct urd_job *job)
{
	u8 *end = job->body + job->body_len;

	job->item.p = urd_rpc_put_response(job->body, job->body_len, job->caller_msgid,
					   conn->in.dialect != URD_DIALECT_PLAIN);
	urd_assert(job->item.p >= job->res.p);
	job->item.len = (u32)(end - job->item.p);
}

/* Replace job->res by a packed error; without memory for it, by a short one. */
static void pack_error(struct urd_conn *conn, struct urd_job *job, const struct urd_fail *fail)
{
	struct urd_core *core = conn->front->core;
	struct urd_fail brief = { .code = fail->code, .executed = fail->executed, .message = "" };
	struct urd_buf buf;
	struct urd_out out;

	if (urd_arena_get(&core->arena, URD_HEADROOM + urd_fail_size(fail), &buf)) {
		out = (struct urd_out){ .p = job->spare + URD_HEADROOM,
					.cap = sizeof(job->spare) - URD_HEADROOM };
		urd_assert(urd_fail_pack(&brief, &out) == 0);
	} else {
		out = (struct urd_out){ .p = buf.p + URD_HEADROOM, .cap = buf.cap - URD_HEADROOM };
		urd_assert(urd_fail_pack(fail, &out) == 0);
		urd_arena_put(&core->arena, &job->res);
		job->res = buf;
	}
	job->item.p = urd_rpc_put_response(out.p, out.len, job->caller_msgid,
					   conn->in.dialect != URD_DIALECT_PLAIN);
	job->item.len = (u32)(out.p + out.len - job->item.p);
}

void conn_pack(struct urd_conn *conn, struct urd_job *job)
{
	struct urd_fail fail = {
		.code = job->code,
		.executed = job->executed,
		.retry_after_ms = job->retry_after_ms,
		.message = urd_code_text(job->code),
		.detail_text = job->detail,
	};
	struct urd_span text;
	char message[256];
	s64 code;

	if (job->code == URD_OK) {
		pack_result(conn, job);
		return;
	}
	if (job->code == URD_APP) {
		urd_fail_parse(job->error, &code, &text);
		if (text.len) {
			snprintf(message, sizeof(message), "%.*s", (int)text.len,
				 (const char *)text.p);
			fail.message = message;
		}
		fail.detail = job->error;
	}
	pack_error(conn, job, &fail);
}

/* [2, "urd.progress", [msgid, value]], in a block of its own */
static int pack_progress(struct urd_conn *conn, struct urd_chunk *chunk)
{
	static const u8 head[] = "\x93\x02\xacurd.progress\x92\xce";
	u32 fixed = sizeof(head) - 1, len = fixed + 4 + chunk->len;
	bool framed = conn->in.dialect != URD_DIALECT_PLAIN;
	struct urd_buf buf;
	u8 *p;

	if (urd_arena_get(&conn->front->core->arena, URD_FRAME_HEADER + len, &buf))
		return -ENOMEM;
	p = buf.p + URD_FRAME_HEADER;
	put_be32(buf.p, len);
	memcpy(p, head, fixed);
	put_be32(p + fixed, chunk->job->caller_msgid);
	memcpy(p + fixed + 4, chunk->data, chunk->len);
	urd_arena_put(&conn->front->core->arena, &chunk->buf);
	chunk->buf = buf;
	chunk->item.p = framed ? buf.p : p;
	chunk->item.len = len + (framed ? URD_FRAME_HEADER : 0);
	return 0;
}

int conn_pack_chunk(struct urd_conn *conn, struct urd_chunk *chunk)
{
	if (chunk->kind == URD_CHUNK_PROGRESS)
		return pack_progress(conn, chunk);
	chunk->item.p = urd_rpc_put_chunk(chunk->data, chunk->len, chunk->job->caller_msgid,
					  conn->in.dialect != URD_DIALECT_PLAIN);
	urd_assert(chunk->item.p >= chunk->buf.p);
	chunk->item.len = (u32)(chunk->data + chunk->len - chunk->item.p);
	return 0;
}
