// SPDX-License-Identifier: MIT
/*
 * Envelopes: what is accepted, each way to be malformed, and that what is put
 * can be parsed again.
 */
#include "wire/rpc.h"

#include "wire/mp.h"

#include "gen.h"

#include <criterion/criterion.h>

static int parse_hex(const char *hex, struct bytes *b, struct urd_msg *m)
{
	*b = bytes_of(hex);
	return urd_rpc_parse(b->p, (u32)b->len, m);
}

static void expect_span(struct urd_span s, const char *hex)
{
	struct bytes want = bytes_of(hex);

	cr_assert_eq(s.len, want.len, "length %u, not %zu", s.len, want.len);
	cr_assert(!memcmp(s.p, want.p, want.len), "not %s", hex);
}

Test(rpc, request)
{
	struct urd_msg m;
	struct bytes b;

	cr_assert_eq(parse_hex("94 00 05 a4 65 63 68 6f 92 01 c0", &b, &m), 0);
	cr_assert_eq(m.tag, URD_TAG_REQUEST);
	cr_assert_eq(m.msgid, 5);
	cr_assert(urd_span_is(m.method, "echo"));
	expect_span(m.params, "92 01 c0");
	cr_assert_eq(m.meta.len, 0);
	cr_assert_eq(parse_hex("95 00 ce ff ff ff ff c4 01 65 c0 81 a1 61 01", &b, &m), 0);
	cr_assert_eq(m.msgid, UINT32_MAX);
	cr_assert(urd_span_is(m.method, "e"));
	expect_span(m.params, "c0");
	expect_span(m.meta, "81 a1 61 01");
	cr_assert_eq(parse_hex("95 00 00 a0 80 90", &b, &m), 0, "empty meta as PHP has it");
	expect_span(m.meta, "90");
}

Test(rpc, response)
{
	struct urd_msg m;
	struct bytes b;

	cr_assert_eq(parse_hex("94 01 cd 01 00 c0 a2 6f 6b", &b, &m), 0);
	cr_assert_eq(m.tag, URD_TAG_RESPONSE);
	cr_assert_eq(m.msgid, 256);
	cr_assert(!m.failed);
	expect_span(m.error, "c0");
	expect_span(m.params, "a2 6f 6b");
	cr_assert_eq(parse_hex("94 01 07 c0 c0", &b, &m), 0);
	cr_assert(!m.failed, "a nil result is a success");
	cr_assert_eq(parse_hex("94 01 07 c2 05", &b, &m), 0);
	cr_assert(m.failed, "anything but nil is an error");
	expect_span(m.error, "c2");
	expect_span(m.params, "05");
}

Test(rpc, notification_and_chunk)
{
	struct urd_msg m;
	struct bytes b;

	cr_assert_eq(parse_hex("93 02 ad 63 6f 6e 74 72 6f 6c 2e 72 65 61 64 79"
			       " 81 a3 70 69 64 cd 04 d2",
			       &b, &m),
		     0);
	cr_assert_eq(m.tag, URD_TAG_NOTIFY);
	cr_assert_eq(m.msgid, 0);
	cr_assert(urd_span_is(m.method, "control.ready"));
	expect_span(m.params, "81 a3 70 69 64 cd 04 d2");
	cr_assert_eq(parse_hex("93 03 09 c4 01 ff", &b, &m), 0);
	cr_assert_eq(m.tag, URD_TAG_CHUNK);
	cr_assert_eq(m.msgid, 9);
	expect_span(m.params, "c4 01 ff");
}

Test(rpc, any_width_of_header_tag_and_msgid)
{
	static const char *const same[] = {
		"dc 00 04 00 05 a1 65 c0",
		"dd 00 00 00 04 00 05 a1 65 c0",
		"94 cc 00 05 a1 65 c0",
		"94 00 cc 05 a1 65 c0",
		"94 00 cd 00 05 a1 65 c0",
		"94 00 ce 00 00 00 05 a1 65 c0",
		"94 00 cf 00 00 00 00 00 00 00 05 a1 65 c0",
		"94 00 05 d9 01 65 c0",
		"94 00 05 db 00 00 00 01 65 c0",
		"94 00 05 c6 00 00 00 01 65 c0",
	};
	struct urd_msg m;
	struct bytes b;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(same); i++) {
		cr_assert_eq(parse_hex(same[i], &b, &m), 0, "%s", same[i]);
		cr_assert_eq(m.tag, URD_TAG_REQUEST);
		cr_assert_eq(m.msgid, 5);
		cr_assert(urd_span_is(m.method, "e"));
		expect_span(m.params, "c0");
	}
}

static const char *const well_formed[] = {
	"94 00 05 a1 65 92 01 c0", "95 00 ce 00 01 00 00 a1 65 c0 81 a1 61 01",
	"94 01 05 c0 a2 6f 6b",	   "94 01 05 82 a1 61 01 a1 62 02 c0",
	"93 02 a1 65 c0",	   "93 03 05 c4 02 00 00",
};

Test(rpc, f27_trailing_bytes_are_refused)
{
	static const char *const tails[] = { "c0", "00", "c1", "ff", "94 00 05 a1 65 c0" };
	struct urd_msg m;
	size_t i;
	size_t k;

	for (i = 0; i < ARRAY_SIZE(well_formed); i++) {
		for (k = 0; k < ARRAY_SIZE(tails); k++) {
			struct bytes b = bytes_of(well_formed[i]);

			cr_assert_eq(urd_rpc_parse(b.p, (u32)b.len, &m), 0);
			bytes_hex(&b, tails[k]);
			cr_assert_eq(urd_rpc_parse(b.p, (u32)b.len, &m), -EBADMSG);
		}
	}
}

Test(rpc, truncation_at_each_byte_is_refused)
{
	struct urd_msg m;
	size_t i;
	u32 n;

	for (i = 0; i < ARRAY_SIZE(well_formed); i++) {
		struct bytes b = bytes_of(well_formed[i]);

		for (n = 0; n < b.len; n++)
			cr_assert_eq(urd_rpc_parse(b.p, n, &m), -EBADMSG, "%s cut at %u",
				     well_formed[i], n);
	}
}

Test(rpc, malformed_messages_are_refused)
{
	static const char *const bad[] = {
		/* no message at all */
		"c1",
		"c0",
		"00",
		"90",
		"80",
		"a1 65",
		"84 00 05 a1 65 c0 c0 c0 c0",
		/* counts */
		"93 00 05 a1 65",
		"96 00 05 a1 65 c0 80 80",
		"92 00 05",
		"91 00",
		"93 01 05 c0",
		"95 01 05 c0 c0 c0",
		"94 02 a1 65 c0 c0",
		"92 02 a1 65",
		"92 03 05",
		"94 03 05 c0 c0",
		"dd ff ff ff ff 00 05 a1 65 c0",
		/* tags */
		"94 04 05 a1 65 c0",
		"94 ff 05 a1 65 c0",
		"94 cf 00 00 00 01 00 00 00 00 05 a1 65 c0",
		"94 c0 05 a1 65 c0",
		"94 a0 05 a1 65 c0",
		"94 c2 05 a1 65 c0",
		/* msgids: negative, wider than 32 bits, other types */
		"94 00 ff a1 65 c0",
		"94 00 d0 80 a1 65 c0",
		"94 00 d3 ff ff ff ff ff ff ff ff a1 65 c0",
		"94 00 cf 00 00 00 01 00 00 00 00 a1 65 c0",
		"94 00 c0 a1 65 c0",
		"94 00 a1 35 a1 65 c0",
		"94 00 ca 00 00 00 00 a1 65 c0",
		"94 01 ff c0 c0",
		"94 01 cf 00 00 00 01 00 00 00 00 c0 c0",
		"93 03 ff c0",
		/* methods */
		"94 00 05 07 c0",
		"94 00 05 c0 c0",
		"94 00 05 91 a1 65 c0",
		"93 02 05 c0",
		"94 00 05 c7 01 65 65 c0",
		"94 00 05 c1 c0",
		/* meta that is no map */
		"95 00 05 a1 65 c0 c0",
		"95 00 05 a1 65 c0 91 01",
		"95 00 05 a1 65 c0 a0",
		/* the unused byte inside of values */
		"94 00 05 a1 65 c1",
		"94 00 05 a1 65 92 c0 c1",
		"94 01 05 c1 c0",
		"94 01 05 c0 c1",
		"93 02 a1 65 c1",
		"93 03 05 c1",
		"95 00 05 a1 65 c0 81 a1 61 c1",
	};
	struct urd_msg m;
	struct bytes b;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_eq(parse_hex(bad[i], &b, &m), -EBADMSG, "%s", bad[i]);
}

Test(rpc, methods_have_a_length_limit)
{
	u32 n;

	for (n = URD_METHOD_MAX; n <= URD_METHOD_MAX + 1; n++) {
		struct bytes b = bytes_of("94 00 05 da");
		struct urd_msg m;

		bytes_add(&b, n, 2);
		memset(b.p + b.len, 'm', n);
		b.len += n;
		bytes_hex(&b, "c0");
		cr_assert_eq(urd_rpc_parse(b.p, (u32)b.len, &m), n > URD_METHOD_MAX ? -EBADMSG : 0);
		if (n <= URD_METHOD_MAX)
			cr_assert_eq(m.method.len, n);
	}
}

/* The envelope is a container too: it and the value have URD_NESTING_MAX together. */
Test(rpc, f27_nesting_is_bounded)
{
	static const struct {
		const char *before;
		const char *after;
		u32 map;
	} places[] = {
		{ "94 00 05 a1 65", "", 0 }, { "95 00 05 a1 65 c0 81 a1 61", "", 1 },
		{ "94 01 05", "c0", 0 },     { "94 01 05 c0", "", 0 },
		{ "93 02 a1 65", "", 0 },    { "93 03 05", "", 0 },
	};
	size_t i;
	u32 depth;
	u32 k;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		for (depth = 62; depth <= 65; depth++) {
			struct bytes b = bytes_of(places[i].before);
			struct urd_msg m;

			for (k = 1; k < depth; k++)
				bytes_hex(&b, "91");
			bytes_hex(&b, "90");
			bytes_hex(&b, places[i].after);
			cr_assert_eq(urd_rpc_parse(b.p, (u32)b.len, &m),
				     1 + places[i].map + depth > URD_NESTING_MAX ? -E2BIG : 0,
				     "place %zu depth %u", i, depth);
		}
	}
}

Test(rpc, salvage_finds_the_msgid_of_a_broken_request)
{
	static const struct {
		const char *hex;
		int ret;
		u32 msgid;
	} cases[] = {
		{ "94 00 05 07 c0", 0, 5 },
		{ "93 00 cd 01 00 c1", 0, 256 },
		{ "dc 00 09 00 ce ff ff ff ff", 0, UINT32_MAX },
		{ "94 00 05 a1 65 c0 c0", 0, 5 },
		{ "94 01 05 c0 c0", -EBADMSG, 0 },
		{ "93 02 a1 65 c0", -EBADMSG, 0 },
		{ "91 00 05", -EBADMSG, 0 },
		{ "94 00", -EBADMSG, 0 },
		{ "94 00 cd 01", -EBADMSG, 0 },
		{ "94 00 ff a1 65 c0", -EBADMSG, 0 },
		{ "94 00 cf 00 00 00 01 00 00 00 00 c0 c0", -EBADMSG, 0 },
		{ "84 00 05", -EBADMSG, 0 },
		{ "", -EBADMSG, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes b = bytes_of(cases[i].hex);
		u32 msgid = 0;

		cr_assert_eq(urd_rpc_salvage(b.p, (u32)b.len, &msgid), cases[i].ret, "%s",
			     cases[i].hex);
		if (!cases[i].ret)
			cr_assert_eq(msgid, cases[i].msgid);
	}
}

static const u32 msgids[] = {
	0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0x7fffffff, 0xffffffff
};

/* Put a request before @body as it lies in a block, and parse it again. */
static void round_trip(u32 msgid, struct urd_span method, const struct bytes *body, bool has_meta)
{
	u8 block[1024];
	u8 *params = block + 512;
	struct urd_msg m;
	u8 *frame;
	u32 len;

	memset(block, 0xee, sizeof(block));
	memcpy(params, body->p, body->len);
	frame = urd_rpc_put_request(params, (u32)body->len, msgid, method, has_meta);
	cr_assert_leq(params - frame, 4 + 1 + 1 + 5 + 2 + method.len);
	cr_assert_eq(frame[-1], 0xee, "written before the frame");
	len = get_be32(frame);
	cr_assert_eq(frame + 4 + len, params + body->len);
	cr_assert(!memcmp(params, body->p, body->len), "the body was touched");
	cr_assert_eq(urd_rpc_parse(frame + 4, len, &m), 0);
	cr_assert_eq(m.tag, URD_TAG_REQUEST);
	cr_assert_eq(m.msgid, msgid);
	cr_assert_eq(m.method.len, method.len);
	cr_assert(!memcmp(m.method.p, method.p, method.len));
	cr_assert_eq(m.params.p, params);
	cr_assert_eq(m.meta.len != 0, has_meta);
}

Test(rpc, requests_round_trip)
{
	struct bytes without = bytes_of("92 01 a1 78");
	struct bytes with = bytes_of("92 01 a1 78 81 a1 61 01");
	char name[URD_METHOD_MAX];
	size_t i;
	u32 n;

	for (n = 0; n < sizeof(name); n++)
		name[n] = (char)('a' + n % 26);
	for (i = 0; i < ARRAY_SIZE(msgids); i++) {
		for (n = 0; n <= sizeof(name); n++) {
			struct urd_span method = { (const u8 *)name, n };

			round_trip(msgids[i], method, &without, false);
			round_trip(msgids[i], method, &with, true);
		}
	}
}

/* The way a request takes: parsed where it was received, prefix cut off, put in place. */
Test(rpc, a_request_goes_on_without_its_prefix)
{
	static const char prefix[] = "pool/";
	size_t i;
	u32 n;

	for (i = 0; i < ARRAY_SIZE(msgids); i++) {
		for (n = 0; n <= URD_METHOD_MAX - 5; n++) {
			struct bytes b = { .len = URD_HEADROOM };
			char name[URD_METHOD_MAX];
			struct urd_span method;
			struct urd_msg m;
			u8 *frame;

			memset(name, 'n', n);
			bytes_hex(&b, n + 5 > 31 ? "94 00 05 d9" : "94 00 05");
			bytes_add(&b, n + 5 > 31 ? n + 5 : 0xa0 | (n + 5), 1);
			memcpy(b.p + b.len, prefix, 5);
			memcpy(b.p + b.len + 5, name, n);
			b.len += 5 + n;
			bytes_hex(&b, "91 c3");
			cr_assert_eq(urd_rpc_parse(b.p + URD_HEADROOM, (u32)b.len - URD_HEADROOM,
						   &m),
				     0);
			method = (struct urd_span){ m.method.p + 5, m.method.len - 5 };
			frame = urd_rpc_put_request(b.p + (m.params.p - b.p), m.params.len,
						    msgids[i], method, false);
			cr_assert_geq(frame, b.p, "headroom is too small");
			cr_assert_eq(urd_rpc_parse(frame + 4, get_be32(frame), &m), 0);
			cr_assert_eq(m.msgid, msgids[i]);
			cr_assert_eq(m.method.len, n);
			cr_assert(!memcmp(m.method.p, name, n));
			expect_span(m.params, "91 c3");
		}
	}
}

/* The source of the name may lie before the place it goes to, and overlap it. */
Test(rpc, a_method_may_lie_where_headers_go)
{
	u32 shift;

	for (shift = 0; shift <= 20; shift++) {
		u8 block[128];
		u8 *params = block + 100;
		struct urd_span method = { params - 8 - shift, 8 };
		struct urd_msg m;
		u8 *frame;

		memset(block, 0xee, sizeof(block));
		memcpy(params - 8 - shift, "abcdefgh", 8);
		params[0] = 0xc0;
		frame = urd_rpc_put_request(params, 1, UINT32_MAX, method, false);
		cr_assert_eq(urd_rpc_parse(frame + 4, get_be32(frame), &m), 0);
		cr_assert(urd_span_is(m.method, "abcdefgh"), "shift %u", shift);
	}
}

Test(rpc, responses_and_chunks_round_trip)
{
	struct bytes body = bytes_of("c0 92 01 02");
	struct bytes data = bytes_of("c4 02 00 00");
	u8 block[64];
	size_t i;
	u32 framed;

	for (i = 0; i < ARRAY_SIZE(msgids); i++) {
		for (framed = 0; framed < 2; framed++) {
			u8 *at = block + 32;
			struct urd_msg m;
			u8 *p;

			memcpy(at, body.p, body.len);
			p = urd_rpc_put_response(at, (u32)body.len, msgids[i], framed);
			cr_assert_leq(at - p, 11);
			if (framed)
				cr_assert_eq(p + 4 + get_be32(p), at + body.len);
			p += framed ? 4 : 0;
			cr_assert_eq(urd_rpc_parse(p, (u32)(at + body.len - p), &m), 0);
			cr_assert_eq(m.tag, URD_TAG_RESPONSE);
			cr_assert_eq(m.msgid, msgids[i]);
			expect_span(m.params, "92 01 02");

			memcpy(at, data.p, data.len);
			p = urd_rpc_put_chunk(at, (u32)data.len, msgids[i], framed);
			if (framed)
				cr_assert_eq(p + 4 + get_be32(p), at + data.len);
			p += framed ? 4 : 0;
			cr_assert_eq(urd_rpc_parse(p, (u32)(at + data.len - p), &m), 0);
			cr_assert_eq(m.tag, URD_TAG_CHUNK);
			cr_assert_eq(m.msgid, msgids[i]);
			expect_span(m.params, "c4 02 00 00");
		}
	}
}
