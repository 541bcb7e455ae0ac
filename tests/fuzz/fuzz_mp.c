// SPDX-License-Identifier: MIT
/*
 * Any bytes, cut anywhere: the incremental scanner and the one-shot length
 * agree, and the cursor's readers stay inside.  The first byte of the input
 * seeds the places of the cuts.
 */
#include "wire/mp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* Scan in pieces; each piece is a copy, so that a read beyond its end is seen. */
static s64 len_in_pieces(const u8 *p, size_t len, u32 seed)
{
	struct urd_mp_scan s;
	size_t at = 0;
	size_t used;
	size_t n;
	u8 *copy;
	int ret;

	urd_mp_scan_init(&s);
	while (at < len) {
		seed = seed * 1664525 + 1013904223;
		n = urd_min(len - at, (size_t)1 + (seed >> 24) % 7);
		copy = malloc(n);
		check(copy);
		memcpy(copy, p + at, n);
		ret = urd_mp_scan(&s, copy, n, &used);
		free(copy);
		if (ret < 0)
			return ret;
		at += used;
		if (ret)
			return (s64)at;
		check(used == n);
	}
	return -EAGAIN;
}

static void read_all_ways(const u8 *p, size_t len)
{
	const struct urd_mp begin = { p, p + len };
	struct urd_mp m = begin;
	struct urd_span s;
	struct urd_mp v;
	u64 u;
	s64 i;
	u32 n;
	bool t;

	if (!urd_mp_str(&m, &s))
		check(s.p + s.len == m.p && m.p <= m.end && urd_mp_len(p, len) == m.p - p);
	m = begin;
	if (!urd_mp_uint(&m, &u))
		check(urd_mp_len(p, len) == m.p - p);
	m = begin;
	if (!urd_mp_int(&m, &i))
		check(urd_mp_len(p, len) == m.p - p);
	m = begin;
	if (!urd_mp_bool(&m, &t) || !urd_mp_map(&m, &n) || !urd_mp_array(&m, &n))
		check(m.p > p && m.p <= m.end);
	m = begin;
	if (!urd_mp_find(&m, "code", &v))
		check(v.p > p && v.end <= m.end &&
		      urd_mp_len(v.p, (size_t)(v.end - v.p)) == v.end - v.p);
	m = begin;
	check(!urd_mp_value(&m, &s) == (urd_mp_len(p, len) > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	s64 len;

	if (size < 2)
		return 0;
	len = urd_mp_len(data + 1, size - 1);
	check(len == len_in_pieces(data + 1, size - 1, data[0]));
	check(len < 0 || (len > 0 && (size_t)len <= size - 1));
	read_all_ways(data + 1, size - 1);
	return 0;
}
