// SPDX-License-Identifier: MIT
/*
 * The MessagePack scanner and cursor.  Everything hangs on one table: what the
 * first byte of a value says about the bytes after it.  Strings and numbers are
 * passed over by their length, containers count down what they still miss.
 *
 * Pure; any bytes are fine as input, and no work is done that they do not pay
 * for with their own length.
 */
#include "wire/mp.h"

/*
 * Entries of the table.  Up to FIXED_MAX: the length of the whole value.
 * Otherwise a kind, and in the lower bits the width of the big-endian number
 * that follows the first byte.
 */
#define FIXED_MAX 0x3fu
#define SIZED 0x40u /* the number is a length in bytes */
#define TYPED 0x50u /* the same, and a type byte is not counted in it */
#define ARRAY 0x80u /* the number counts values; width 0: in the first byte */
#define MAP 0x90u   /* the number counts pairs; likewise */
#define NEVER 0xc0u
#define KIND_MASK 0xf0u
#define WIDTH_MASK 0x0fu

/* clang-format off */
static const u8 first_byte[256] = {
	[0x00 ... 0x7f] = 1,
	[0x80 ... 0x8f] = MAP,
	[0x90 ... 0x9f] = ARRAY,
	[0xa0] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
	17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
	[0xc0] = 1,
	[0xc1] = NEVER,
	[0xc2] = 1, 1,
	[0xc4] = SIZED | 1, SIZED | 2, SIZED | 4,
	[0xc7] = TYPED | 1, TYPED | 2, TYPED | 4,
	[0xca] = 5, 9,
	[0xcc] = 2, 3, 5, 9,
	[0xd0] = 2, 3, 5, 9,
	[0xd4] = 3, 4, 6, 10, 18,
	[0xd9] = SIZED | 1, SIZED | 2, SIZED | 4,
	[0xdc] = ARRAY | 2, ARRAY | 4,
	[0xde] = MAP | 2, MAP | 4,
	[0xe0 ... 0xff] = 1,
};
/* clang-format on */

static u64 get_be(const u8 *p, u32 width)
{
	u64 v = 0;

	while (width--)
		v = v << 8 | *p++;
	return v;
}

void urd_mp_scan_init(struct urd_mp_scan *s)
{
	/* What lies above the depth is not read; clearing it would cost more than a scan. */
	s->skip = 0;
	s->depth = 0;
	s->head_len = 0;
	s->done = false;
}

/* Pass over whole values of fixed length, as long as the container lasts. */
static inline const u8 *pass_fixed(const u8 *at, const u8 *end, u64 *left)
{
	while (*left && at < end) {
		u32 n = first_byte[*at];

		/* A guessed step of one need not wait for the table. */
		while (n == 1) {
			at++;
			if (!--*left || at == end)
				return at;
			n = first_byte[*at];
		}
		if (n > FIXED_MAX || n > (size_t)(end - at))
			break;
		at += n;
		--*left;
	}
	return at;
}

/* A whole header is at @h: open the container, or note the bytes to skip. */
static inline int header_apply(struct urd_mp_scan *s, const u8 *h, u64 *left)
{
	u32 kind = first_byte[*h] & KIND_MASK;
	u32 width = first_byte[*h] & WIDTH_MASK;
	u64 n = width ? get_be(h + 1, width) : *h & 0x0fu;

	--*left;
	if (kind == SIZED || kind == TYPED) {
		s->skip = n + (kind == TYPED);
		return 0;
	}
	if (s->depth == URD_NESTING_MAX)
		return -E2BIG;
	if (s->depth)
		s->left[s->depth - 1] = *left;
	s->depth++;
	*left = kind == MAP ? n * 2 : n;
	return 0;
}

/*
 * Begin a value at @*pp, which is before @end, or go on with its header.  The
 * bytes of a header that is not whole are put aside.
 */
static inline int value_begin(struct urd_mp_scan *s, const u8 **pp, const u8 *end, u64 *left)
{
	size_t avail = (size_t)(end - *pp);
	u8 first = s->head_len ? s->head[0] : **pp;
	u32 entry = first_byte[first];
	size_t size = 1 + (entry & WIDTH_MASK);
	int ret;

	if (entry <= FIXED_MAX) {
		s->skip = entry;
		--*left;
		return 0;
	}
	if (entry == NEVER)
		return -EBADMSG;
	if (!s->head_len && avail >= size) {
		ret = header_apply(s, *pp, left);
		*pp += size;
		return ret;
	}
	avail = urd_min(avail, size - s->head_len);
	memcpy(s->head + s->head_len, *pp, avail);
	s->head_len = (u8)(s->head_len + avail);
	*pp += avail;
	if (s->head_len < size)
		return 0;
	s->head_len = 0;
	return header_apply(s, s->head, left);
}

int urd_mp_scan(struct urd_mp_scan *s, const u8 *p, size_t len, size_t *used)
{
	const u8 *at = p;
	const u8 *end = p + len;
	/* At the root one value is missing, until it has begun and is being skipped. */
	u64 left = s->depth ? s->left[s->depth - 1] : !s->skip;
	int ret = 0;

	urd_assert(!s->done);
	while (!ret) {
		if (s->skip) {
			size_t n = urd_min(s->skip, (u64)(end - at));

			at += n;
			s->skip -= n;
			if (s->skip)
				break;
		}
		if (!s->head_len)
			at = pass_fixed(at, end, &left);
		while (!left && s->depth) {
			s->depth--;
			left = s->depth ? s->left[s->depth - 1] : 0;
		}
		if (!left) {
			s->done = true;
			ret = 1;
		} else if (at == end) {
			break;
		} else {
			ret = value_begin(s, &at, end, &left);
		}
	}
	if (s->depth)
		s->left[s->depth - 1] = left;
	*used = (size_t)(at - p);
	return ret;
}

s64 urd_mp_len(const u8 *p, size_t len)
{
	struct urd_mp_scan s;
	size_t used;
	int ret;

	urd_mp_scan_init(&s);
	ret = urd_mp_scan(&s, p, len, &used);
	if (ret < 0)
		return ret;
	return ret ? (s64)used : -EAGAIN;
}

static size_t mp_room(const struct urd_mp *m)
{
	return (size_t)(m->end - m->p);
}

/* Read the header of a container of @kind. Return: is there one? */
static bool container_read(struct urd_mp *m, u32 kind, u32 *n)
{
	u32 entry;
	u32 width;

	if (m->p == m->end)
		return false;
	entry = first_byte[*m->p];
	width = entry & WIDTH_MASK;
	if (entry <= FIXED_MAX || (entry & KIND_MASK) != kind || mp_room(m) < 1 + width)
		return false;
	*n = width ? (u32)get_be(m->p + 1, width) : *m->p & 0x0fu;
	m->p += 1 + width;
	return true;
}

int urd_mp_array(struct urd_mp *m, u32 *n)
{
	return container_read(m, ARRAY, n) ? 0 : -EBADMSG;
}

int urd_mp_map(struct urd_mp *m, u32 *n)
{
	struct urd_mp at = *m;
	u32 count;

	if (container_read(m, MAP, n))
		return 0;
	if (!container_read(&at, ARRAY, &count) || count)
		return -EBADMSG;
	*n = 0;
	*m = at;
	return 0;
}

/* Read any integer: @v is its value, or its two's complement if @negative. */
static int number_read(struct urd_mp *m, u64 *v, bool *negative)
{
	u32 size;
	u8 b;

	if (m->p == m->end)
		return -EBADMSG;
	b = *m->p;
	size = first_byte[b];
	if (b > 0x7f && b < 0xe0 && (b < 0xcc || b > 0xd3))
		return -EBADMSG;
	if (mp_room(m) < size)
		return -EBADMSG;
	*v = size == 1 ? b : get_be(m->p + 1, size - 1);
	*negative = false;
	if (b >= 0xd0) {
		/* A number of one byte has its sign where one of width 1 has it. */
		u32 shift = 64 - 8 * (size == 1 ? 1 : size - 1);

		*v = (u64)((s64)(*v << shift) >> shift);
		*negative = *v >> 63;
	}
	m->p += size;
	return 0;
}

int urd_mp_uint(struct urd_mp *m, u64 *v)
{
	struct urd_mp at = *m;
	bool negative;
	u64 n;

	if (number_read(&at, &n, &negative) || negative)
		return -EBADMSG;
	*v = n;
	*m = at;
	return 0;
}

int urd_mp_int(struct urd_mp *m, s64 *v)
{
	struct urd_mp at = *m;
	bool negative;
	u64 n;

	if (number_read(&at, &n, &negative) || (!negative && n > INT64_MAX))
		return -EBADMSG;
	*v = (s64)n;
	*m = at;
	return 0;
}

int urd_mp_bool(struct urd_mp *m, bool *v)
{
	if (m->p == m->end || (*m->p & 0xfe) != 0xc2)
		return -EBADMSG;
	*v = *m->p++ & 1;
	return 0;
}

int urd_mp_str(struct urd_mp *m, struct urd_span *s)
{
	size_t head;
	u64 len;
	u8 b;

	if (m->p == m->end)
		return -EBADMSG;
	b = *m->p;
	if ((b & 0xe0) == 0xa0) {
		head = 1;
		len = b & 0x1fu;
	} else if ((first_byte[b] & KIND_MASK) == SIZED) {
		head = 1 + (first_byte[b] & WIDTH_MASK);
		if (mp_room(m) < head)
			return -EBADMSG;
		len = get_be(m->p + 1, (u32)head - 1);
	} else {
		return -EBADMSG;
	}
	if (mp_room(m) - head < len)
		return -EBADMSG;
	s->p = m->p + head;
	s->len = (u32)len;
	m->p += head + len;
	return 0;
}

int urd_mp_value_within(struct urd_mp *m, u32 depth, struct urd_span *s)
{
	struct urd_mp_scan scan;
	size_t used;
	u32 i;
	int ret;

	urd_assert(depth <= URD_NESTING_MAX);
	urd_mp_scan_init(&scan);
	/* The containers around it miss nothing but this value. */
	for (i = 0; i < depth; i++)
		scan.left[i] = i + 1 == depth;
	scan.depth = depth;
	ret = urd_mp_scan(&scan, m->p, mp_room(m), &used);
	if (ret < 0)
		return ret;
	if (!ret || used > UINT32_MAX)
		return -EBADMSG;
	s->p = m->p;
	s->len = (u32)used;
	m->p += used;
	return 0;
}

int urd_mp_value(struct urd_mp *m, struct urd_span *s)
{
	return urd_mp_value_within(m, 0, s) ? -EBADMSG : 0;
}

bool urd_mp_is_nil(const struct urd_mp *m)
{
	return m->p < m->end && *m->p == 0xc0;
}

int urd_mp_find(const struct urd_mp *m, const char *key, struct urd_mp *value)
{
	struct urd_mp at = *m;
	struct urd_span span;
	u32 n;

	if (urd_mp_map(&at, &n))
		return -EBADMSG;
	while (n--) {
		bool found = false;

		if (!urd_mp_str(&at, &span))
			found = urd_span_is(span, key);
		else if (urd_mp_value(&at, &span))
			return -EBADMSG;
		if (urd_mp_value(&at, &span))
			return -EBADMSG;
		if (found) {
			value->p = span.p;
			value->end = span.p + span.len;
			return 0;
		}
	}
	return -ENOENT;
}

bool urd_span_is(struct urd_span s, const char *str)
{
	return s.len == strlen(str) && (!s.len || !memcmp(s.p, str, s.len));
}
