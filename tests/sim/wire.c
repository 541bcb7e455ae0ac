// SPDX-License-Identifier: MIT
/*
 * The bytes that model workers and clients send and understand: MessagePack as
 * far as the protocol goes, written apart from src/wire so that one does not
 * repeat the other's mistakes.  Blobs follow from the number of their request,
 * so that an answer that is somebody else's is told by its content.
 */
#include "sim.h"

/* One stretch of pseudo-random bytes; each request looks at it from its own place. */
#define PATTERN_BYTES (1u << 16)
static u8 pattern[PATTERN_BYTES + SIM_BLOB_MAX];

/* ---- packing ---- */

void enc_raw(struct sim_enc *e, const void *p, u32 len)
{
	urd_assert(e->len + len <= e->cap);
	memcpy(e->p + e->len, p, len);
	e->len += len;
}

void enc_byte(struct sim_enc *e, u8 v)
{
	enc_raw(e, &v, 1);
}

static void enc_be(struct sim_enc *e, u64 v, u32 bytes)
{
	while (bytes-- > 0)
		enc_byte(e, (u8)(v >> 8 * bytes));
}

void enc_uint(struct sim_enc *e, u64 v)
{
	if (v < 128) {
		enc_byte(e, (u8)v);
	} else if (v <= 0xffff) {
		enc_byte(e, 0xcd);
		enc_be(e, v, 2);
	} else if (v <= 0xffffffff) {
		enc_byte(e, 0xce);
		enc_be(e, v, 4);
	} else {
		enc_byte(e, 0xcf);
		enc_be(e, v, 8);
	}
}

void enc_str(struct sim_enc *e, const char *s)
{
	size_t n = strlen(s);

	urd_assert(n < 256);
	if (n < 32) {
		enc_byte(e, (u8)(0xa0 | n));
	} else {
		enc_byte(e, 0xd9);
		enc_byte(e, (u8)n);
	}
	enc_raw(e, s, (u32)n);
}

static const u8 *blob_of(u32 id)
{
	if (!pattern[0]) {
		u64 x = 88172645463325252ull;

		for (u32 i = 0; i < sizeof(pattern); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			pattern[i] = (u8)(x >> 24);
		}
		pattern[0] = 1;
	}
	return pattern + (id * 40503u + 1) % PATTERN_BYTES;
}

void enc_blob(struct sim_enc *e, u32 id, u32 len)
{
	if (len < 256) {
		enc_byte(e, 0xc4);
		enc_be(e, len, 1);
	} else {
		enc_byte(e, 0xc6);
		enc_be(e, len, 4);
	}
	enc_raw(e, blob_of(id), len);
}

bool blob_is(struct urd_span s, u32 id)
{
	return s.len <= SIM_BLOB_MAX && !memcmp(s.p, blob_of(id), s.len);
}

u32 reply_blob(u32 id)
{
	/* now and then as long as may be, mostly short */
	u32 x = id * 2654435761u;

	if (x >> 28 == 0)
		return x % (u32)(sim.o.blob_max + 1);
	return x >> 8 & 63;
}

u32 enc_begin(struct sim_enc *e, bool framed)
{
	if (framed)
		enc_be(e, 0, URD_FRAME_HEADER);
	return e->len;
}

void enc_end(struct sim_enc *e, u32 mark, bool framed)
{
	if (framed)
		put_be32(e->p + mark - URD_FRAME_HEADER, e->len - mark);
}

/* ---- reading ---- */

static u64 dec_be(struct sim_dec *d, u32 bytes)
{
	u64 v = 0;

	if (d->bad || (u64)(d->end - d->p) < bytes) {
		d->lacks = d->lacks || !d->bad;
		d->bad = true;
		return 0;
	}
	while (bytes-- > 0)
		v = v << 8 | *d->p++;
	return v;
}

static u64 dec_fail(struct sim_dec *d)
{
	d->bad = true;
	return 0;
}

static void dec_pass(struct sim_dec *d, u64 n)
{
	if (d->bad)
		return;
	if ((u64)(d->end - d->p) < n) {
		d->lacks = true;
		d->bad = true;
		return;
	}
	d->p += n;
}

u32 dec_array(struct sim_dec *d)
{
	u8 b = (u8)dec_be(d, 1);

	if (!d->bad && (b & 0xf0) == 0x90)
		return b & 15;
	if (!d->bad && b == 0xdc)
		return (u32)dec_be(d, 2);
	return (u32)dec_fail(d);
}

u32 dec_map(struct sim_dec *d)
{
	u8 b = (u8)dec_be(d, 1);

	if (!d->bad && (b & 0xf0) == 0x80)
		return b & 15;
	return (u32)dec_fail(d);
}

u64 dec_uint(struct sim_dec *d)
{
	u8 b = (u8)dec_be(d, 1);

	if (d->bad)
		return 0;
	if (b < 128)
		return b;
	if (b >= 0xcc && b <= 0xcf)
		return dec_be(d, 1u << (b - 0xcc));
	return dec_fail(d);
}

/* Length of a string or binary whose first byte is @b; bad if it is neither. */
static u64 dec_bytes_len(struct sim_dec *d, u8 b)
{
	if ((b & 0xe0) == 0xa0)
		return b & 31;
	if (b == 0xc4 || b == 0xd9)
		return dec_be(d, 1);
	if (b == 0xc5 || b == 0xda)
		return dec_be(d, 2);
	if (b == 0xc6 || b == 0xdb)
		return dec_be(d, 4);
	return dec_fail(d);
}

struct urd_span dec_str(struct sim_dec *d)
{
	u8 b = (u8)dec_be(d, 1);
	u64 n = d->bad ? 0 : dec_bytes_len(d, b);
	const u8 *p = d->p;

	dec_pass(d, n);
	return (struct urd_span){ p, d->bad ? 0 : (u32)n };
}

void dec_skip(struct sim_dec *d)
{
	u64 todo = 1;

	while (todo > 0 && !d->bad) {
		u8 b = (u8)dec_be(d, 1);

		todo--;
		if (d->bad)
			return;
		if (b < 0x80 || b >= 0xe0 || b == 0xc0 || b == 0xc2 || b == 0xc3)
			continue;
		if ((b & 0xf0) == 0x80)
			todo += 2 * (b & 15);
		else if ((b & 0xf0) == 0x90)
			todo += b & 15;
		else if (b >= 0xcc && b <= 0xd3)
			dec_pass(d, 1u << (b & 3));
		else
			dec_pass(d, dec_bytes_len(d, b));
	}
}

bool dec_is_nil(const struct sim_dec *d)
{
	return d->p < d->end && *d->p == 0xc0;
}
