// SPDX-License-Identifier: MIT
/*
 * Envelopes: strict when reading, since the peer may be anybody; written from
 * back to front, so that the payload behind an envelope stays where it is.
 * Error bodies are the only values that urd itself composes.
 */
#include "wire/rpc.h"

#include "wire/mp.h"

#include <urd/client.h>

#include <msgpack/pack.h>

/* The array of the message itself is the outermost container. */
#define ENVELOPE_DEPTH 1u

static int msgid_read(struct urd_mp *at, u32 *msgid)
{
	u64 v;

	if (urd_mp_uint(at, &v) || v > UINT32_MAX)
		return -EBADMSG;
	*msgid = (u32)v;
	return 0;
}

static int method_read(struct urd_mp *at, struct urd_span *method)
{
	if (urd_mp_str(at, method) || method->len > URD_METHOD_MAX)
		return -EBADMSG;
	return 0;
}

static int meta_read(struct urd_mp *at, struct urd_span *meta)
{
	struct urd_mp map = *at;
	u32 n;

	if (urd_mp_map(&map, &n))
		return -EBADMSG;
	return urd_mp_value_within(at, ENVELOPE_DEPTH, meta);
}

static int request_read(struct urd_mp *at, u32 n, struct urd_msg *m)
{
	int ret;

	if (n != 4 && n != 5)
		return -EBADMSG;
	if (msgid_read(at, &m->msgid) || method_read(at, &m->method))
		return -EBADMSG;
	ret = urd_mp_value_within(at, ENVELOPE_DEPTH, &m->params);
	if (!ret && n == 5)
		ret = meta_read(at, &m->meta);
	return ret;
}

static int response_read(struct urd_mp *at, u32 n, struct urd_msg *m)
{
	int ret;

	if (n != 4 || msgid_read(at, &m->msgid))
		return -EBADMSG;
	m->failed = !urd_mp_is_nil(at);
	ret = urd_mp_value_within(at, ENVELOPE_DEPTH, &m->error);
	if (!ret)
		ret = urd_mp_value_within(at, ENVELOPE_DEPTH, &m->params);
	return ret;
}

static int notify_read(struct urd_mp *at, u32 n, struct urd_msg *m)
{
	if (n != 3 || method_read(at, &m->method))
		return -EBADMSG;
	return urd_mp_value_within(at, ENVELOPE_DEPTH, &m->params);
}

static int chunk_read(struct urd_mp *at, u32 n, struct urd_msg *m)
{
	if (n != 3 || msgid_read(at, &m->msgid))
		return -EBADMSG;
	return urd_mp_value_within(at, ENVELOPE_DEPTH, &m->params);
}

int urd_rpc_parse(const u8 *p, u32 len, struct urd_msg *m)
{
	struct urd_mp at = { p, p + len };
	u64 tag;
	u32 n;
	int ret;

	memset(m, 0, sizeof(*m));
	if (urd_mp_array(&at, &n) || urd_mp_uint(&at, &tag))
		return -EBADMSG;
	switch (tag) {
	case URD_TAG_REQUEST:
		m->tag = URD_TAG_REQUEST;
		ret = request_read(&at, n, m);
		break;
	case URD_TAG_RESPONSE:
		m->tag = URD_TAG_RESPONSE;
		ret = response_read(&at, n, m);
		break;
	case URD_TAG_NOTIFY:
		m->tag = URD_TAG_NOTIFY;
		ret = notify_read(&at, n, m);
		break;
	case URD_TAG_CHUNK:
		m->tag = URD_TAG_CHUNK;
		ret = chunk_read(&at, n, m);
		break;
	default:
		return -EBADMSG;
	}
	if (!ret && at.p != at.end)
		ret = -EBADMSG;
	return ret;
}

int urd_rpc_salvage(const u8 *p, u32 len, u32 *msgid)
{
	struct urd_mp at = { p, p + len };
	u64 tag;
	u32 n;

	if (urd_mp_array(&at, &n) || n < 2 || urd_mp_uint(&at, &tag) || tag != URD_TAG_REQUEST)
		return -EBADMSG;
	return msgid_read(&at, msgid);
}

/* The put_ functions write what goes before @p, and return where it begins. */

static u8 *msgid_put(u8 *p, u32 msgid)
{
	if (msgid > UINT16_MAX) {
		p -= 5;
		p[0] = 0xce;
		put_be32(p + 1, msgid);
	} else if (msgid > UINT8_MAX) {
		p -= 3;
		p[0] = 0xcd;
		p[1] = (u8)(msgid >> 8);
		p[2] = (u8)msgid;
	} else if (msgid > 0x7f) {
		*--p = (u8)msgid;
		*--p = 0xcc;
	} else {
		*--p = (u8)msgid;
	}
	return p;
}

static u8 *method_put(u8 *p, struct urd_span method)
{
	urd_assert(method.len <= URD_METHOD_MAX);
	p -= method.len;
	/* First of all, because the source may lie where the headers will. */
	memmove(p, method.p, method.len);
	if (method.len > 31) {
		*--p = (u8)method.len;
		*--p = 0xd9;
	} else {
		*--p = (u8)(0xa0 | method.len);
	}
	return p;
}

static u8 *frame_put(u8 *p, u32 len)
{
	p -= URD_FRAME_HEADER;
	put_be32(p, len);
	return p;
}

u8 *urd_rpc_put_request(u8 *params, u32 body_len, u32 msgid, struct urd_span method, bool has_meta)
{
	u8 *p = method_put(params, method);

	p = msgid_put(p, msgid);
	*--p = URD_TAG_REQUEST;
	*--p = (u8)(0x90 | (has_meta ? 5 : 4));
	return frame_put(p, body_len + (u32)(params - p));
}

/* Array header, tag and msgid before a body: what answers and chunks have in common. */
static u8 *reply_put(u8 *body, u32 body_len, u32 msgid, u32 count, enum urd_tag tag, bool framed)
{
	u8 *p = msgid_put(body, msgid);

	*--p = (u8)tag;
	*--p = (u8)(0x90 | count);
	return framed ? frame_put(p, body_len + (u32)(body - p)) : p;
}

u8 *urd_rpc_put_response(u8 *body, u32 body_len, u32 msgid, bool framed)
{
	return reply_put(body, body_len, msgid, 4, URD_TAG_RESPONSE, framed);
}

u8 *urd_rpc_put_chunk(u8 *data, u32 data_len, u32 msgid, bool framed)
{
	return reply_put(data, data_len, msgid, 3, URD_TAG_CHUNK, framed);
}

int urd_out_write(void *out, const char *data, size_t len)
{
	struct urd_out *o = out;

	if (o->full || len > o->cap - o->len) {
		o->full = true;
		return -1;
	}
	if (len)
		memcpy(o->p + o->len, data, len);
	o->len += (u32)len;
	return 0;
}

static const char *fail_message(const struct urd_fail *f)
{
	return f->message ? f->message : urd_code_text((int)f->code);
}

static void str_pack(msgpack_packer *pk, const char *s)
{
	size_t len = strlen(s);

	msgpack_pack_str(pk, len);
	msgpack_pack_str_body(pk, s, len);
}

u32 urd_fail_size(const struct urd_fail *f)
{
	/*
	 * Keys and their headers 50, values code 5, executed 6, retry 5, nil 1, and
	 * 5 for the header of each of three texts: less than 96.
	 */
	size_t size = 96 + strlen(urd_code_name((int)f->code)) + strlen(fail_message(f));

	if (f->detail.len)
		size += f->detail.len;
	else if (f->detail_text)
		size += strlen(f->detail_text);
	urd_assert(size <= UINT32_MAX);
	return (u32)size;
}

int urd_fail_pack(const struct urd_fail *f, struct urd_out *out)
{
	bool has_detail = f->detail.len || f->detail_text;
	msgpack_packer pk;

	msgpack_packer_init(&pk, out, urd_out_write);
	msgpack_pack_map(&pk, 4 + (f->retry_after_ms != 0) + has_detail);
	str_pack(&pk, "code");
	msgpack_pack_int(&pk, (int)f->code);
	str_pack(&pk, "name");
	str_pack(&pk, urd_code_name((int)f->code));
	str_pack(&pk, "message");
	str_pack(&pk, fail_message(f));
	str_pack(&pk, "executed");
	str_pack(&pk, urd_executed_name(f->executed));
	if (f->retry_after_ms) {
		str_pack(&pk, "retry_after_ms");
		msgpack_pack_uint32(&pk, f->retry_after_ms);
	}
	if (has_detail)
		str_pack(&pk, "detail");
	if (f->detail.len)
		urd_out_write(out, (const char *)f->detail.p, f->detail.len);
	else if (f->detail_text)
		str_pack(&pk, f->detail_text);
	msgpack_pack_nil(&pk);
	return out->full ? -ENOBUFS : 0;
}

void urd_fail_parse(struct urd_span error, s64 *code, struct urd_span *message)
{
	struct urd_mp m;
	struct urd_mp at;

	*code = 0;
	message->p = error.p;
	message->len = 0;
	if (!error.len)
		return;
	m.p = error.p;
	m.end = error.p + error.len;
	at = m;
	if (!urd_mp_str(&at, message))
		return;
	if (!urd_mp_find(&m, "code", &at) && urd_mp_int(&at, code))
		*code = 0;
	if (!urd_mp_find(&m, "message", &at) && urd_mp_str(&at, message))
		message->len = 0;
}
