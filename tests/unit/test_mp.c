// SPDX-License-Identifier: MIT
/*
 * The scanner and the cursor: every kind of value by hand, then random and
 * damaged ones, on which the scanner must agree with itself however the bytes
 * are cut.
 */
#include "wire/mp.h"

#include "gen.h"

#include <criterion/criterion.h>

/* Scan piece by piece: what urd_mp_len() would say, had it all bytes at once. */
static s64 len_in_pieces(const u8 *p, struct cuts *c)
{
	struct urd_mp_scan s;
	size_t at = 0;
	size_t used;
	int ret;

	urd_mp_scan_init(&s);
	while (at < c->len) {
		size_t n = cuts_piece(c, at);

		ret = urd_mp_scan(&s, p + at, n, &used);
		if (ret < 0)
			return ret;
		cr_assert_leq(used, n);
		at += used;
		if (ret)
			return (s64)at;
		cr_assert_eq(used, n, "bytes left over though more are needed");
	}
	return -EAGAIN;
}

static void expect_len(const u8 *p, size_t len, s64 want)
{
	struct cuts c = { .len = len };

	cr_assert_eq(urd_mp_len(p, len), want, "%zu bytes at once: %lld, not %lld", len,
		     (long long)urd_mp_len(p, len), (long long)want);
	while (cuts_next(&c))
		cr_assert_eq(len_in_pieces(p, &c), want, "in pieces, mask %x a %zu b %zu", c.mask,
			     c.a, c.b);
}

/* A value is whole at its last byte, not before, and not changed by what follows. */
static void expect_value(const struct bytes *b)
{
	struct bytes more = *b;
	size_t n;

	for (n = 0; n < b->len; n++)
		cr_assert_eq(urd_mp_len(b->p, n), -EAGAIN, "whole after %zu of %zu bytes", n,
			     b->len);
	bytes_hex(&more, "c1");
	cr_assert_eq(urd_mp_len(more.p, more.len), (s64)b->len);
	expect_len(b->p, b->len, (s64)b->len);
}

static const char *const values[] = {
	"00",
	"7f",
	"e0",
	"ff",
	"c0",
	"c2",
	"c3",
	"cc ff",
	"cd ff ff",
	"ce ff ff ff ff",
	"cf ff ff ff ff ff ff ff ff",
	"d0 80",
	"d1 80 00",
	"d2 80 00 00 00",
	"d3 80 00 00 00 00 00 00 00",
	"ca 00 00 00 00",
	"cb 00 00 00 00 00 00 00 00",
	"a0",
	"a1 c1",
	"d9 00",
	"d9 02 c1 c1",
	"da 00 00",
	"da 00 01 c1",
	"db 00 00 00 00",
	"db 00 00 00 02 c1 c1",
	"c4 00",
	"c4 01 c1",
	"c5 00 01 c1",
	"c6 00 00 00 01 c1",
	"c7 00 05",
	"c7 02 05 c1 c1",
	"c8 00 01 05 c1",
	"c9 00 00 00 01 05 c1",
	"d4 05 c1",
	"d5 05 c1 c1",
	"d6 05 c1 c1 c1 c1",
	"d7 05 c1 c1 c1 c1 c1 c1 c1 c1",
	"d8 05 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1 c1",
	"90",
	"80",
	"93 01 02 03",
	"81 a1 61 90",
	"82 01 80 02 90",
	"dc 00 00",
	"dc 00 02 c0 c0",
	"dd 00 00 00 00",
	"dd 00 00 00 01 c0",
	"de 00 00",
	"de 00 01 c0 c0",
	"df 00 00 00 00",
	"df 00 00 00 01 c0 c0",
	"91 91 91 90",
	"92 81 c0 91 80 a2 c1 c1",
	"92 dc 00 01 c0 da 00 01 61",
};

Test(mp, each_kind_of_value_ends_where_it_ends)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		struct bytes b = bytes_of(values[i]);

		expect_value(&b);
	}
}

Test(mp, each_short_string_has_its_length)
{
	u32 n;

	for (n = 0; n < 32; n++) {
		struct bytes b = { .len = 0 };

		bytes_add(&b, 0xa0 | n, 1);
		memset(b.p + 1, 0xc1, n);
		b.len += n;
		expect_value(&b);
	}
}

Test(mp, each_short_container_has_its_count)
{
	u32 n;

	for (n = 0; n < 16; n++) {
		struct bytes a = { .len = 0 };
		struct bytes m = { .len = 0 };

		bytes_add(&a, 0x90 | n, 1);
		memset(a.p + 1, 0xc0, n);
		a.len += n;
		expect_value(&a);
		bytes_add(&m, 0x80 | n, 1);
		memset(m.p + 1, 0xc0, 2 * n);
		m.len += 2 * n;
		expect_value(&m);
	}
}

Test(mp, the_unused_byte_is_refused_wherever_a_value_may_be)
{
	static const char *const bad[] = {
		"c1",	       "91 c1",		 "81 c1",	  "81 c0 c1",
		"92 a1 61 c1", "dc 00 02 c0 c1", "91 81 c0 91 c1"
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct bytes b = bytes_of(bad[i]);

		expect_len(b.p, b.len, -EBADMSG);
		cr_assert_eq(urd_mp_len(b.p, b.len - 1), -EAGAIN);
	}
}

/* @depth containers, one in the other, the last of them empty. */
static struct bytes nested(u32 depth, const char *around, const char *innermost)
{
	struct bytes b = { .len = 0 };

	while (--depth)
		bytes_hex(&b, around);
	bytes_hex(&b, innermost);
	return b;
}

Test(mp, f27_nesting_is_bounded)
{
	static const char *const around[] = { "91",    "dc 00 01",    "dd 00 00 00 01",
					      "81 c0", "de 00 01 c0", "df 00 00 00 01 c0" };
	static const char *const innermost[] = { "90", "dc 00 00", "dd 00 00 00 00",
						 "80", "de 00 00", "df 00 00 00 00" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(around); i++) {
		struct bytes b = nested(URD_NESTING_MAX, around[i], innermost[i]);

		expect_len(b.p, b.len, (s64)b.len);
		b = nested(URD_NESTING_MAX + 1, around[i], innermost[i]);
		expect_len(b.p, b.len, -E2BIG);
		cr_assert_eq(urd_mp_len(b.p, b.len - 1), -EAGAIN);
	}
}

Test(mp, nesting_counts_open_containers_only)
{
	struct bytes b = { .len = 0 };
	u32 i;

	bytes_hex(&b, "dc 01 00");
	for (i = 0; i < 256; i++)
		bytes_hex(&b, "91 91 90");
	cr_assert_eq(urd_mp_len(b.p, b.len), (s64)b.len);
}

Test(mp, sizes_of_32_bits_do_not_wrap)
{
	static const struct {
		const char *hex;
		u64 want;
	} cases[] = {
		{ "db ff ff ff ff", 5 + 0xffffffffull },
		{ "c6 ff ff ff ff", 5 + 0xffffffffull },
		{ "c9 ff ff ff ff", 6 + 0xffffffffull },
		{ "dd ff ff ff ff", 5 + 0xffffffffull },
		{ "df ff ff ff ff", 5 + 2 * 0xffffffffull },
	};
	static u8 zeros[1 << 20];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes b = bytes_of(cases[i].hex);
		struct urd_mp_scan s;
		u64 total = b.len;
		size_t used;
		int ret;

		/* Containers of 4 thousand million: see that they begin well, not that they end. */
		urd_mp_scan_init(&s);
		cr_assert_eq(urd_mp_scan(&s, b.p, b.len, &used), 0);
		if (b.p[0] == 0xdd || b.p[0] == 0xdf) {
			cr_assert_eq(s.left[0], cases[i].want - b.len);
			continue;
		}
		do {
			ret = urd_mp_scan(&s, zeros, sizeof(zeros), &used);
			total += used;
		} while (!ret);
		cr_assert_eq(ret, 1);
		cr_assert_eq(total, cases[i].want);
	}
}

Test(mp, any_cut_gives_the_same_outcome)
{
	u64 seed = 77;
	u32 i;

	for (i = 0; i < 2000; i++) {
		struct bytes b = { .len = 0 };

		gen_value(&seed, &b, 6);
		if (i % 2)
			gen_damage(&seed, &b);
		if (b.len <= 120)
			expect_len(b.p, b.len, urd_mp_len(b.p, b.len));
	}
}

static struct urd_mp cursor(const struct bytes *b)
{
	return (struct urd_mp){ b->p, b->p + b->len };
}

Test(mp, integers_of_all_widths)
{
	static const struct {
		const char *hex;
		int ret_uint;
		int ret_int;
		s64 v;
	} cases[] = {
		{ "00", 0, 0, 0 },
		{ "7f", 0, 0, 127 },
		{ "e0", -EBADMSG, 0, -32 },
		{ "ff", -EBADMSG, 0, -1 },
		{ "cc ff", 0, 0, 255 },
		{ "cd 01 00", 0, 0, 256 },
		{ "ce ff ff ff ff", 0, 0, 4294967295 },
		{ "cf 7f ff ff ff ff ff ff ff", 0, 0, INT64_MAX },
		{ "cf ff ff ff ff ff ff ff ff", 0, -EBADMSG, -1 },
		{ "d0 7f", 0, 0, 127 },
		{ "d0 80", -EBADMSG, 0, -128 },
		{ "d1 80 a7", -EBADMSG, 0, -32601 },
		{ "d1 00 07", 0, 0, 7 },
		{ "d2 80 00 00 00", -EBADMSG, 0, INT32_MIN },
		{ "d2 7f ff ff ff", 0, 0, INT32_MAX },
		{ "d3 80 00 00 00 00 00 00 00", -EBADMSG, 0, INT64_MIN },
		{ "d3 00 00 00 00 00 00 00 01", 0, 0, 1 },
		{ "c0", -EBADMSG, -EBADMSG, 0 },
		{ "c2", -EBADMSG, -EBADMSG, 0 },
		{ "a1 31", -EBADMSG, -EBADMSG, 0 },
		{ "91 01", -EBADMSG, -EBADMSG, 0 },
		{ "ca 3f 80 00 00", -EBADMSG, -EBADMSG, 0 },
		{ "cb 3f f0 00 00 00 00 00 00", -EBADMSG, -EBADMSG, 0 },
		{ "d4 00 01", -EBADMSG, -EBADMSG, 0 },
		{ "c1", -EBADMSG, -EBADMSG, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes b = bytes_of(cases[i].hex);
		struct urd_mp m = cursor(&b);
		u64 u = 0;
		s64 s = 0;

		cr_assert_eq(urd_mp_uint(&m, &u), cases[i].ret_uint, "%s", cases[i].hex);
		cr_assert_eq(m.p, cases[i].ret_uint ? b.p : b.p + b.len);
		if (!cases[i].ret_uint)
			cr_assert_eq(u, (u64)cases[i].v, "%s", cases[i].hex);
		m = cursor(&b);
		cr_assert_eq(urd_mp_int(&m, &s), cases[i].ret_int, "%s", cases[i].hex);
		cr_assert_eq(m.p, cases[i].ret_int ? b.p : b.p + b.len);
		if (!cases[i].ret_int)
			cr_assert_eq(s, cases[i].v, "%s", cases[i].hex);
	}
}

/* No reader takes a value whose bytes are not all there, or moves when it fails. */
Test(mp, readers_refuse_truncated_values_and_stay)
{
	size_t i;
	size_t n;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		struct bytes b = bytes_of(values[i]);

		for (n = 0; n < b.len; n++) {
			struct urd_mp m = { b.p, b.p + n };
			struct urd_span span;
			u64 u;
			s64 s;
			bool t;

			cr_assert_eq(urd_mp_uint(&m, &u), -EBADMSG);
			cr_assert_eq(urd_mp_int(&m, &s), -EBADMSG);
			cr_assert_eq(urd_mp_bool(&m, &t), -EBADMSG);
			cr_assert_eq(urd_mp_str(&m, &span), -EBADMSG);
			cr_assert_eq(urd_mp_value(&m, &span), -EBADMSG);
			cr_assert_eq(m.p, b.p);
			if (!n)
				cr_assert(!urd_mp_is_nil(&m));
		}
	}
}

Test(mp, strings_and_binaries_are_read_in_place)
{
	static const char *const strings[] = { "a3 61 00 ff",
					       "d9 03 61 00 ff",
					       "da 00 03 61 00 ff",
					       "db 00 00 00 03 61 00 ff",
					       "c4 03 61 00 ff",
					       "c5 00 03 61 00 ff",
					       "c6 00 00 00 03 61 00 ff" };
	static const char *const others[] = { "03", "93 61 00 7f", "c7 01 61 00", "c0",
					      "d6 61 00 7f 7f 7f" };
	struct urd_span s;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(strings); i++) {
		struct bytes b = bytes_of(strings[i]);
		struct urd_mp m = cursor(&b);

		cr_assert_eq(urd_mp_str(&m, &s), 0, "%s", strings[i]);
		cr_assert_eq(s.len, 3);
		cr_assert_eq(s.p, b.p + b.len - 3);
		cr_assert_eq(m.p, m.end);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		struct bytes b = bytes_of(others[i]);
		struct urd_mp m = cursor(&b);

		cr_assert_eq(urd_mp_str(&m, &s), -EBADMSG, "%s", others[i]);
		cr_assert_eq(m.p, b.p);
	}
}

Test(mp, container_headers)
{
	static const struct {
		const char *hex;
		int ret_array;
		int ret_map;
		u32 n;
	} cases[] = {
		{ "90", 0, 0, 0 },
		{ "dc 00 00", 0, 0, 0 },
		{ "dd 00 00 00 00", 0, 0, 0 },
		{ "9f", 0, -EBADMSG, 15 },
		{ "dc 01 02", 0, -EBADMSG, 258 },
		{ "dd 01 02 03 04", 0, -EBADMSG, 0x01020304 },
		{ "80", -EBADMSG, 0, 0 },
		{ "8f", -EBADMSG, 0, 15 },
		{ "de 01 02", -EBADMSG, 0, 258 },
		{ "df ff ff ff ff", -EBADMSG, 0, 0xffffffff },
		{ "dc 00", -EBADMSG, -EBADMSG, 0 },
		{ "df 00 00 00", -EBADMSG, -EBADMSG, 0 },
		{ "c0", -EBADMSG, -EBADMSG, 0 },
		{ "a0", -EBADMSG, -EBADMSG, 0 },
		{ "c1", -EBADMSG, -EBADMSG, 0 },
	};
	size_t i;
	u32 n;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes b = bytes_of(cases[i].hex);
		struct urd_mp m = cursor(&b);

		cr_assert_eq(urd_mp_array(&m, &n), cases[i].ret_array, "%s", cases[i].hex);
		cr_assert_eq(m.p, cases[i].ret_array ? b.p : b.p + b.len);
		if (!cases[i].ret_array)
			cr_assert_eq(n, cases[i].n);
		m = cursor(&b);
		cr_assert_eq(urd_mp_map(&m, &n), cases[i].ret_map, "%s", cases[i].hex);
		cr_assert_eq(m.p, cases[i].ret_map ? b.p : b.p + b.len);
		if (!cases[i].ret_map)
			cr_assert_eq(n, cases[i].n);
	}
}

Test(mp, booleans_and_nil)
{
	struct bytes b = bytes_of("c3 c2 c0 c1");
	struct urd_mp m = cursor(&b);
	bool v;

	cr_assert(!urd_mp_is_nil(&m));
	cr_assert_eq(urd_mp_bool(&m, &v), 0);
	cr_assert(v);
	cr_assert_eq(urd_mp_bool(&m, &v), 0);
	cr_assert(!v);
	cr_assert(urd_mp_is_nil(&m));
	cr_assert_eq(urd_mp_bool(&m, &v), -EBADMSG);
	cr_assert_eq(m.p, b.p + 2);
}

Test(mp, find_walks_any_keys)
{
	/* {7: "x", nil: [1], "pid": 1234, bin "bin": {"a": true}, "pid": 5} */
	struct bytes b = bytes_of("85 07 a1 78 c0 91 01 a3 70 69 64 cd 04 d2"
				  " c4 03 62 69 6e 81 a1 61 c3 a3 70 69 64 05");
	struct urd_mp m = cursor(&b);
	struct urd_mp v;
	struct urd_mp w;
	u64 pid;
	bool t = false;

	cr_assert_eq(urd_mp_find(&m, "pid", &v), 0);
	cr_assert_eq(urd_mp_uint(&v, &pid), 0);
	cr_assert_eq(pid, 1234, "the first of two wins");
	cr_assert_eq(v.p, v.end, "the cursor ends with the value");
	cr_assert_eq(urd_mp_find(&m, "bin", &v), 0);
	cr_assert_eq(urd_mp_find(&v, "a", &w), 0);
	cr_assert_eq(urd_mp_bool(&w, &t), 0);
	cr_assert(t);
	cr_assert_eq(urd_mp_find(&m, "x", &v), -ENOENT, "a value is no key");
	cr_assert_eq(urd_mp_find(&m, "pi", &v), -ENOENT);
	cr_assert_eq(urd_mp_find(&m, "", &v), -ENOENT);
	cr_assert_eq(m.p, b.p);
	b = bytes_of("90");
	m = cursor(&b);
	cr_assert_eq(urd_mp_find(&m, "pid", &v), -ENOENT);
	b = bytes_of("91 a3 70 69 64");
	m = cursor(&b);
	cr_assert_eq(urd_mp_find(&m, "pid", &v), -EBADMSG);
	b = bytes_of("82 01 02 a3 70 69 64 cd 04");
	m = cursor(&b);
	cr_assert_eq(urd_mp_find(&m, "pid", &v), -EBADMSG);
}

Test(mp, a_value_within_containers_has_less_depth_left)
{
	struct bytes b = nested(URD_NESTING_MAX - 1, "91", "90");
	struct urd_mp m = cursor(&b);
	struct urd_span s;

	cr_assert_eq(urd_mp_value_within(&m, 2, &s), -E2BIG);
	cr_assert_eq(m.p, b.p);
	cr_assert_eq(urd_mp_value_within(&m, 1, &s), 0);
	cr_assert_eq(s.len, b.len);
	cr_assert_eq(m.p, m.end);
	b = bytes_of("05 06");
	m = cursor(&b);
	cr_assert_eq(urd_mp_value_within(&m, URD_NESTING_MAX, &s), 0);
	cr_assert_eq(s.len, 1, "one value, not all that the containers have");
}

Test(mp, span_is_compares_all_bytes)
{
	static const u8 text[] = "echo";

	cr_assert(urd_span_is((struct urd_span){ text, 4 }, "echo"));
	cr_assert(!urd_span_is((struct urd_span){ text, 3 }, "echo"));
	cr_assert(!urd_span_is((struct urd_span){ text, 4 }, "ech"));
	cr_assert(!urd_span_is((struct urd_span){ text, 4 }, "echO"));
	cr_assert(!urd_span_is((struct urd_span){ text, 5 }, "echo"), "NUL is a byte too");
	cr_assert(urd_span_is((struct urd_span){ NULL, 0 }, ""));
}
