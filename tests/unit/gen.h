/* SPDX-License-Identifier: MIT */
/*
 * Input for the tests of the wire layer: seeded random numbers, bytes written
 * as hexadecimal text, random MessagePack values in any legal encoding, and
 * ways to cut a stream into reads.
 */
#ifndef URD_TEST_GEN_H
#define URD_TEST_GEN_H

#include "base/base.h"

/** struct bytes - a growing string of bytes of fixed capacity */
struct bytes {
	u8 p[4096];
	size_t len;
};

/** gen_next - next number of a xorshift sequence; the seed is not 0 */
static inline u64 gen_next(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed * 0x2545f4914f6cdd1dull;
}

/** gen_below - a number from 0 to @n - 1 */
static inline u32 gen_below(u64 *seed, u32 n)
{
	return (u32)((gen_next(seed) >> 32) % n);
}

/** bytes_add - append a number, big-endian, @width bytes wide */
static inline void bytes_add(struct bytes *b, u64 v, u32 width)
{
	while (width--)
		b->p[b->len++] = (u8)(v >> 8 * width);
}

/** bytes_hex - append bytes given as hexadecimal digits and blanks */
static inline void bytes_hex(struct bytes *b, const char *hex)
{
	static const char digits[] = "0123456789abcdef";
	u32 nibbles = 0;
	u32 v = 0;

	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		v = v << 4 | (u32)(strchr(digits, *hex) - digits);
		if (++nibbles % 2 == 0)
			bytes_add(b, v & 0xff, 1);
	}
	urd_assert(nibbles % 2 == 0);
}

/** bytes_of - bytes from hexadecimal text */
static inline struct bytes bytes_of(const char *hex)
{
	struct bytes b = { .len = 0 };

	bytes_hex(&b, hex);
	return b;
}

/* Append a string, binary or extension: some header, and a body of up to 40 bytes. */
static inline void gen_sized(u64 *seed, struct bytes *b)
{
	static const u8 first[] = { 0xd9, 0xda, 0xdb, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9 };
	u32 kind = gen_below(seed, sizeof(first));
	u32 n = gen_below(seed, 41);

	bytes_add(b, first[kind], 1);
	bytes_add(b, n, 1u << kind % 3);
	for (n += kind >= 6; n; n--)
		bytes_add(b, gen_next(seed), 1);
}

/* Append a value that is no container and tells its length by its first byte. */
static inline void gen_fixed(u64 *seed, struct bytes *b)
{
	static const u8 first[] = { 0xc0, 0xc2, 0xc3, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf,
				    0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8,
				    0x00, 0x7f, 0xe0, 0xff, 0xa0, 0xa1, 0xa7, 0xbf };
	static const u8 body[] = { 0, 0, 0, 4, 8,  1, 2, 4, 8, 1, 2, 4, 8,
				   2, 3, 5, 9, 17, 0, 0, 0, 0, 0, 1, 7, 31 };
	u32 i = gen_below(seed, sizeof(first));
	u32 n = body[i];

	bytes_add(b, first[i], 1);
	while (n--)
		bytes_add(b, gen_next(seed), 1);
}

/**
 * gen_value - append one random well-formed value
 * @seed: state of the random sequence
 * @b: where to; containers stop growing when it is half full
 * @depth: most containers within containers, at most 20
 */
static inline void gen_value(u64 *seed, struct bytes *b, u32 depth)
{
	static const u8 first[] = { 0x90, 0x80, 0xdc, 0xde, 0xdd, 0xdf };
	u32 missing[21] = { 1 };
	u32 level = 0;
	u32 kind;
	u32 n;

	for (;;) {
		while (!missing[level]) {
			if (!level)
				return;
			level--;
		}
		missing[level]--;
		kind = gen_below(seed, 16);
		if (kind >= 6 || level == depth || b->len > sizeof(b->p) / 2) {
			kind % 2 ? gen_fixed(seed, b) : gen_sized(seed, b);
			continue;
		}
		n = gen_below(seed, 6);
		bytes_add(b, first[kind] | (kind < 2 ? n : 0), 1);
		if (kind >= 2)
			bytes_add(b, n, kind < 4 ? 2 : 4);
		missing[++level] = first[kind] == 0x80 || kind == 3 || kind == 5 ? 2 * n : n;
	}
}

/** gen_damage - change, drop or cut off a few bytes */
static inline void gen_damage(u64 *seed, struct bytes *b)
{
	u32 times = 1 + gen_below(seed, 3);

	while (times-- && b->len) {
		u32 at = gen_below(seed, (u32)b->len);

		switch (gen_below(seed, 4)) {
		case 0:
			b->p[at] = (u8)gen_next(seed);
			break;
		case 1:
			b->len = at;
			break;
		case 2:
			memmove(b->p + at, b->p + at + 1, b->len - at - 1);
			b->len--;
			break;
		case 3:
			b->p[at] = 0xc1;
			break;
		}
	}
}

/**
 * struct cuts - the ways to read a stream of @len bytes piece by piece
 *
 * Every way if the stream is short; otherwise every pair of places, and byte
 * by byte.  Begin with all zero but @len, and go on while cuts_next().
 */
struct cuts {
	size_t len;
	size_t a;
	size_t b;
	bool bytewise;
	u32 mask;
	bool begun;
};

#define CUTS_ALL_MAX 13u

/** cuts_next - go to the next way. Return: was there one? */
static inline bool cuts_next(struct cuts *c)
{
	if (c->len <= CUTS_ALL_MAX) {
		if (c->begun && ++c->mask >= 1u << (c->len ? c->len - 1 : 0))
			return false;
		c->begun = true;
		return true;
	}
	if (c->bytewise)
		return false;
	if (!c->begun) {
		c->begun = true;
		c->a = 1;
		c->b = 1;
	} else if (++c->b >= c->len) {
		c->b = ++c->a;
		c->bytewise = c->a >= c->len;
	}
	return true;
}

/** cuts_piece - length of the piece that begins at @at */
static inline size_t cuts_piece(const struct cuts *c, size_t at)
{
	size_t end = at + 1;

	if (c->bytewise)
		return 1;
	if (c->len > CUTS_ALL_MAX)
		return (at < c->a ? c->a : at < c->b ? c->b : c->len) - at;
	while (end < c->len && !(c->mask & 1u << (end - 1)))
		end++;
	return end - at;
}

#endif /* URD_TEST_GEN_H */
