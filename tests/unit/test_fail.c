// SPDX-License-Identifier: MIT
/*
 * Errors as callers see them: what is packed is read again, key by key and in
 * order, and no buffer is overrun.
 */
#include "wire/rpc.h"

#include "wire/mp.h"

#include "gen.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <urd/client.h>

Test(fail, out_takes_what_fits_and_no_more)
{
	u8 room[4] = { 0, 0, 0, 0xee };
	struct urd_out out = { .p = room, .cap = 3 };

	cr_assert_eq(urd_out_write(&out, "ab", 2), 0);
	cr_assert_eq(urd_out_write(&out, "", 0), 0);
	cr_assert_neq(urd_out_write(&out, "cd", 2), 0);
	cr_assert(out.full);
	cr_assert_neq(urd_out_write(&out, "e", 1), 0, "full stays full");
	cr_assert_eq(room[3], 0xee);
}

/* Read the keys of an error map in their order. */
static u32 fail_keys(struct urd_mp *m, struct urd_span *keys, struct urd_mp *map)
{
	struct urd_span value;
	u32 i;
	u32 n;

	*map = *m;
	cr_assert_eq(urd_mp_map(m, &n), 0);
	for (i = 0; i < n; i++) {
		cr_assert_eq(urd_mp_str(m, &keys[i]), 0);
		cr_assert_eq(urd_mp_value(m, &value), 0);
	}
	return n;
}

static void expect_fail_str(const struct urd_mp *map, const char *key, const char *want)
{
	struct urd_span s;
	struct urd_mp v;

	cr_assert_eq(urd_mp_find(map, key, &v), 0, "%s", key);
	cr_assert_eq(urd_mp_str(&v, &s), 0);
	cr_assert(urd_span_is(s, want), "%s is not %s", key, want);
}

static void expect_fail(const struct urd_fail *f)
{
	static const char *const order[] = { "code",	 "name",	   "message",
					     "executed", "retry_after_ms", "detail" };
	bool has_detail = f->detail.len || f->detail_text;
	struct urd_out out = { .cap = urd_fail_size(f) };
	struct urd_span keys[8];
	struct urd_mp m;
	struct urd_mp map;
	struct urd_mp v;
	u32 at = 0;
	u64 n;
	u32 i;

	out.p = malloc(out.cap);
	cr_assert_eq(urd_fail_pack(f, &out), 0, "needs more than urd_fail_size()");
	m = (struct urd_mp){ out.p, out.p + out.len };
	cr_assert_eq(fail_keys(&m, keys, &map), 4u + (f->retry_after_ms != 0) + has_detail);
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		if ((i == 4 && !f->retry_after_ms) || (i == 5 && !has_detail))
			cr_assert_eq(urd_mp_find(&map, order[i], &v), -ENOENT);
		else
			cr_assert(urd_span_is(keys[at++], order[i]), "key %u is not %s", at,
				  order[i]);
	}
	cr_assert(urd_mp_is_nil(&m), "the result is nil");
	cr_assert_eq(m.p + 1, m.end);
	cr_assert_eq(urd_mp_find(&map, "code", &v), 0);
	cr_assert_eq(urd_mp_uint(&v, &n), 0);
	cr_assert_eq(n, f->code);
	expect_fail_str(&map, "name", urd_code_name((int)f->code));
	expect_fail_str(&map, "message", f->message);
	expect_fail_str(&map, "executed", urd_executed_name(f->executed));
	if (f->retry_after_ms) {
		cr_assert_eq(urd_mp_find(&map, "retry_after_ms", &v), 0);
		cr_assert_eq(urd_mp_uint(&v, &n), 0);
		cr_assert_eq(n, f->retry_after_ms);
	}
	if (f->detail.len) {
		cr_assert_eq(urd_mp_find(&map, "detail", &v), 0);
		cr_assert_eq(v.end - v.p, f->detail.len);
		cr_assert(!memcmp(v.p, f->detail.p, f->detail.len), "detail was changed");
	} else if (f->detail_text) {
		expect_fail_str(&map, "detail", f->detail_text);
	}
	free(out.p);
}

Test(fail, errors_round_trip)
{
	struct bytes worker = bytes_of("82 a4 63 6f 64 65 d1 80 a7 a1 6d c4 01 ff");
	struct urd_fail f;
	u32 i;

	for (i = URD_APP; i < URD_CODE_NR; i++) {
		memset(&f, 0, sizeof(f));
		f.code = (enum urd_code)i;
		f.executed = (enum urd_executed)(i % 3);
		f.message = urd_code_text((int)i);
		expect_fail(&f);
		f.retry_after_ms = UINT32_MAX;
		expect_fail(&f);
		f.detail_text = "exit status 3";
		expect_fail(&f);
		f.detail = (struct urd_span){ worker.p, (u32)worker.len };
		expect_fail(&f);
	}
}

Test(fail, error_size_holds_for_long_texts)
{
	static char text[70001];
	struct urd_fail f = { .code = URD_QUEUE_TIMEOUT,
			      .executed = URD_EXECUTED_MAYBE,
			      .retry_after_ms = UINT32_MAX,
			      .message = text,
			      .detail_text = text };
	static const u32 lengths[] = { 0, 31, 32, 255, 256, 65535, 65536, 70000 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		memset(text, 0, sizeof(text));
		memset(text, 't', lengths[i]);
		expect_fail(&f);
	}
}

Test(fail, errors_do_not_overrun_a_small_buffer)
{
	struct urd_fail f = { .code = URD_BUSY, .message = "no room", .detail_text = "8 of 8" };
	u8 room[256];
	struct urd_out whole = { .p = room, .cap = sizeof(room) };
	u32 cap;

	cr_assert_eq(urd_fail_pack(&f, &whole), 0);
	for (cap = 0; cap <= whole.len; cap++) {
		struct urd_out out = { .p = room, .cap = cap };

		memset(room, 0xee, sizeof(room));
		cr_assert_eq(urd_fail_pack(&f, &out), cap < whole.len ? -ENOBUFS : 0);
		cr_assert_eq(room[cap], 0xee);
	}
}

Test(fail, error_values_of_workers)
{
	static const struct {
		const char *hex;
		s64 code;
		const char *message;
	} cases[] = {
		{ "82 a4 63 6f 64 65 d1 80 a7 a7 6d 65 73 73 61 67 65 a2 6e 6f", -32601, "no" },
		{ "82 a7 6d 65 73 73 61 67 65 c4 02 6e 6f a4 63 6f 64 65 07", 7, "no" },
		{ "81 a4 63 6f 64 65 a1 37", 0, "" },
		{ "81 a4 63 6f 64 65 cf ff ff ff ff ff ff ff ff", 0, "" },
		{ "81 a7 6d 65 73 73 61 67 65 05", 0, "" },
		{ "a4 6f 6f 70 73", 0, "oops" },
		{ "c4 04 6f 6f 70 73", 0, "oops" },
		{ "05", 0, "" },
		{ "c3", 0, "" },
		{ "90", 0, "" },
		{ "92 a4 63 6f 64 65 07", 0, "" },
		{ "", 0, "" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes b = bytes_of(cases[i].hex);
		struct urd_span message;
		s64 code = -1;

		urd_fail_parse((struct urd_span){ b.p, (u32)b.len }, &code, &message);
		cr_assert_eq(code, cases[i].code, "%s", cases[i].hex);
		cr_assert(urd_span_is(message, cases[i].message), "%s", cases[i].hex);
	}
	{
		struct urd_span message = { (const u8 *)"left over", 9 };
		s64 code = -1;

		urd_fail_parse((struct urd_span){ NULL, 0 }, &code, &message);
		cr_assert_eq(code, 0);
		cr_assert_eq(message.len, 0);
	}
}
