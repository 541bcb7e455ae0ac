// SPDX-License-Identifier: MIT
/*
 * What a handler may ask of a request and do with it.  Each request is answered
 * once; that is checked here, so that a handler's slip becomes its own error
 * and not a broken stream of answers.
 */
#include "sdk/worker_impl.h"

#include <msgpack/pack.h>
#include <stdlib.h>

#include "wire/mp.h"

/* Longest text of an error: the daemon shows it to people. */
#define FAIL_TEXT_MAX 4096u

static void meta_parse(struct urd_req *req, struct urd_span meta)
{
	struct urd_span s;
	struct urd_mp m;
	struct urd_mp v;
	u64 n;
	bool yes;

	if (!meta.len)
		return;
	m = (struct urd_mp){ meta.p, meta.p + meta.len };
	if (!urd_mp_find(&m, "deadline_ms", &v) && !urd_mp_uint(&v, &n))
		req->deadline_ms = (s64)urd_min(n, (u64)INT64_MAX);
	if (!urd_mp_find(&m, "attempt", &v) && !urd_mp_uint(&v, &n))
		req->attempt = (u32)urd_min(n, (u64)UINT32_MAX);
	if (!urd_mp_find(&m, "stream", &v) && !urd_mp_bool(&v, &yes))
		req->stream = yes;
	if (!urd_mp_find(&m, "traceparent", &v) && !urd_mp_str(&v, &s) && s.len <= TRACE_MAX) {
		memcpy(req->trace, s.p, s.len);
		req->trace[s.len] = '\0';
	}
}

void urd_req_init(struct urd_req *req, struct urd_worker *w, const struct urd_msg *m)
{
	req->w = w;
	req->params = m->params;
	req->deadline_ms = -1;
	req->msgid = m->msgid;
	req->credit = CREDIT_START;
	req->attempt = 1;
	req->open = true;
	req->stream = false;
	req->cancelled = false;
	req->method_len = m->method.len;
	memcpy(req->method, m->method.p, m->method.len);
	req->method[m->method.len] = '\0';
	req->trace[0] = '\0';
	meta_parse(req, m->meta);
}

URD_API const char *urd_req_method(const struct urd_req *req)
{
	return req->method;
}

URD_API const void *urd_req_params(const struct urd_req *req)
{
	return req->params.p;
}

URD_API size_t urd_req_params_len(const struct urd_req *req)
{
	return req->params.len;
}

URD_API int64_t urd_req_deadline_ms(const struct urd_req *req)
{
	return req->deadline_ms;
}

URD_API unsigned int urd_req_attempt(const struct urd_req *req)
{
	return req->attempt;
}

URD_API const char *urd_req_trace(const struct urd_req *req)
{
	return req->trace[0] ? req->trace : NULL;
}

URD_API bool urd_req_wants_stream(const struct urd_req *req)
{
	return req->stream;
}

URD_API bool urd_req_cancelled(struct urd_req *req)
{
	while (!req->cancelled && urd_worker_listen(req->w, 0) > 0)
		;
	return req->cancelled;
}

/* A value that is not one value would break the stream for everybody after it. */
static bool is_one_value(const void *data, size_t len)
{
	s64 n = urd_mp_len(data, len);

	return n > 0 && (u64)n == len;
}

URD_API int urd_req_reply(struct urd_req *req, const void *data, size_t len)
{
	u8 head[URD_HEADROOM];
	u8 *nil = head + sizeof(head) - 1;
	u8 *p;

	if (!req->open)
		return -EALREADY;
	if (len > UINT32_MAX - URD_HEADROOM)
		return -EMSGSIZE;
	if (!is_one_value(data, len))
		return -EINVAL;
	req->open = false;
	*nil = 0xc0;
	p = urd_rpc_put_response(nil, 1 + (u32)len, req->msgid, true);
	return urd_worker_write(req->w, req->w->task_out, p, (size_t)(nil + 1 - p), data, len);
}

URD_API int urd_req_fail(struct urd_req *req, int code, const char *message)
{
	u8 buf[URD_HEADROOM + FAIL_TEXT_MAX + 64];
	struct urd_out out = { .p = buf, .len = URD_HEADROOM, .cap = sizeof(buf) };
	size_t len = strnlen(message, FAIL_TEXT_MAX + 1);
	msgpack_packer pk;
	u8 *p;

	if (!req->open)
		return -EALREADY;
	if (len > FAIL_TEXT_MAX) {
		len = FAIL_TEXT_MAX;
		while (len && (message[len] & 0xc0) == 0x80)
			len--;
	}
	req->open = false;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_map(&pk, 2);
	msgpack_pack_str_with_body(&pk, "code", 4);
	msgpack_pack_int(&pk, code);
	msgpack_pack_str_with_body(&pk, "message", 7);
	msgpack_pack_str_with_body(&pk, message, len);
	msgpack_pack_nil(&pk);
	urd_assert(!out.full);
	p = urd_rpc_put_response(buf + URD_HEADROOM, out.len - URD_HEADROOM, req->msgid, true);
	return urd_worker_write(req->w, req->w->task_out, p, (size_t)(buf + out.len - p), NULL, 0);
}

URD_API int urd_req_chunk(struct urd_req *req, const void *data, size_t len)
{
	u8 head[URD_HEADROOM];
	u8 *end = head + sizeof(head);
	int ret;
	u8 *p;

	if (!req->open)
		return -EALREADY;
	if (len > UINT32_MAX - URD_HEADROOM)
		return -EMSGSIZE;
	if (!req->stream || !is_one_value(data, len))
		return -EINVAL;
	if (urd_req_cancelled(req))
		return -ECANCELED;
	while (!req->credit) {
		ret = urd_worker_listen(req->w, -1);
		if (ret < 0)
			return ret;
		if (req->cancelled)
			return -ECANCELED;
	}
	req->credit--;
	p = urd_rpc_put_chunk(end, (u32)len, req->msgid, true);
	return urd_worker_write(req->w, req->w->task_out, p, (size_t)(end - p), data, len);
}

URD_API int urd_req_progress(struct urd_req *req, const void *data, size_t len)
{
	struct urd_out out;
	msgpack_packer pk;
	int ret;

	if (!req->open)
		return -EALREADY;
	if (len > URD_CONTROL_MAX)
		return -EMSGSIZE;
	if (!is_one_value(data, len))
		return -EINVAL;
	/* array and msgid take six bytes at most */
	out = (struct urd_out){ .p = malloc(len + 6), .cap = (u32)len + 6 };
	if (!out.p)
		return -ENOMEM;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_uint32(&pk, req->msgid);
	ret = urd_out_write(&out, data, len);
	urd_assert(!ret && !out.full);
	ret = urd_worker_notify(req->w, "control.progress", (struct urd_span){ out.p, out.len });
	free(out.p);
	return ret;
}
