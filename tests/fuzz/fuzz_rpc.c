// SPDX-License-Identifier: MIT
/*
 * Any bytes as a payload.  What parses has its spans inside, in order and well
 * formed; and written again under another number it parses to the same.
 */
#include "wire/rpc.h"

#include "wire/mp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_value(struct urd_span s, const u8 *begin, const u8 *end)
{
	check(s.p >= begin && s.p + s.len <= end && urd_mp_len(s.p, s.len) == s.len);
}

static bool same(struct urd_span a, struct urd_span b)
{
	return a.len == b.len && (!a.len || !memcmp(a.p, b.p, a.len));
}

static void check_spans(const struct urd_msg *m, const u8 *begin, const u8 *end)
{
	const u8 *last = m->meta.len ? m->meta.p + m->meta.len : m->params.p + m->params.len;

	check_value(m->params, begin, end);
	check(last == end);
	if (m->tag == URD_TAG_REQUEST || m->tag == URD_TAG_NOTIFY)
		check(m->method.len <= URD_METHOD_MAX &&
		      m->method.p + m->method.len == m->params.p);
	if (m->tag == URD_TAG_RESPONSE) {
		check_value(m->error, begin, end);
		check(m->failed == (*m->error.p != 0xc0));
	}
	if (m->meta.len)
		check_value(m->meta, begin, end);
}

/* Put the message again where a received one would lie, with nothing to spare. */
static void put_again(const struct urd_msg *m, const u8 *data, u32 size)
{
	u8 *block = malloc(URD_HEADROOM + size);
	u8 *at = block + URD_HEADROOM;
	struct urd_msg again;
	u32 body_len;
	u8 *p;

	check(block);
	memcpy(at, data, size);
	if (m->tag == URD_TAG_REQUEST) {
		struct urd_span method = { at + (m->method.p - data), m->method.len };

		body_len = m->params.len + m->meta.len;
		p = urd_rpc_put_request(at + (m->params.p - data), body_len, UINT32_MAX, method,
					m->meta.len);
	} else if (m->tag == URD_TAG_RESPONSE) {
		body_len = m->error.len + m->params.len;
		p = urd_rpc_put_response(at + (m->error.p - data), body_len, UINT32_MAX, true);
	} else {
		p = urd_rpc_put_chunk(at + (m->params.p - data), m->params.len, UINT32_MAX, true);
	}
	check(p >= block && p + 4 + get_be32(p) == at + size);
	check(!urd_rpc_parse(p + 4, get_be32(p), &again));
	check(again.msgid == UINT32_MAX && again.failed == m->failed);
	check(again.params.len == m->params.len && again.error.len == m->error.len);
	check(again.meta.len == m->meta.len);
	check(m->tag != URD_TAG_REQUEST || same(again.method, m->method));
	check(same(again.params, m->params) && same(again.error, m->error));
	free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct urd_span all = { data, (u32)size };
	struct urd_span message;
	struct urd_msg m;
	u32 msgid;
	s64 code;
	int ret;

	if (!size)
		return 0;
	ret = urd_rpc_parse(data, (u32)size, &m);
	check(ret == 0 || ret == -EBADMSG || ret == -E2BIG);
	if (!ret) {
		check_spans(&m, data, data + size);
		put_again(&m, data, (u32)size);
	}
	if (!urd_rpc_salvage(data, (u32)size, &msgid) && !ret)
		check(m.tag == URD_TAG_REQUEST && m.msgid == msgid);
	urd_fail_parse(all, &code, &message);
	check(message.p >= data && message.p + message.len <= data + size);
	return 0;
}
