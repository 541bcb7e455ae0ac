/* SPDX-License-Identifier: MIT */
/*
 * MessagePack without a tree: an incremental scanner that finds where a value
 * ends and whether it is well formed, and a cursor that reads small values in
 * place.  Nothing is decoded into objects, nothing is allocated; bytes come
 * from strangers and are trusted in nothing.  (Packing is msgpack-c's job.)
 */
#ifndef URD_MP_H
#define URD_MP_H

#include <urd/wire.h>

#include "base/base.h"

/**
 * struct urd_mp_scan - where an incremental scan stands
 * @left: values still missing in each open container, outermost first
 * @depth: open containers
 * @skip: bytes of a string, binary, extension or number still to pass over
 * @head: bytes of a header that has not wholly arrived
 * @head_len: how many of them
 *
 * Opaque to callers; copyable.
 */
struct urd_mp_scan {
	u64 left[URD_NESTING_MAX];
	u64 skip;
	u32 depth;
	u8 head[8];
	u8 head_len;
	bool done;
};

/** urd_mp_scan_init - begin at the first byte of a value */
void urd_mp_scan_init(struct urd_mp_scan *s);

/**
 * urd_mp_scan - go on with more bytes
 * @s: state; after 1 or an error it must be initialised again
 * @p: the bytes that follow those of the last call
 * @len: how many
 * @used: set to the bytes consumed; all of them unless 1 is returned
 *
 * Any split of the same bytes gives the same outcome.
 *
 * Return: 1 the value is complete; 0 more is needed; -EBADMSG not MessagePack
 * (byte c1); -E2BIG nested deeper than URD_NESTING_MAX.
 */
int urd_mp_scan(struct urd_mp_scan *s, const u8 *p, size_t len, size_t *used) URD_MUST_CHECK;

/**
 * urd_mp_len - length of the one value at @p
 *
 * Return: bytes, at least 1; -EAGAIN truncated; -EBADMSG; -E2BIG.
 */
s64 urd_mp_len(const u8 *p, size_t len) URD_MUST_CHECK;

/**
 * struct urd_mp - a cursor over complete bytes
 * @p: next byte to read
 * @end: one after the last
 *
 * The readers return 0 and advance, or -EBADMSG (another type, or truncated)
 * and stay.
 */
struct urd_mp {
	const u8 *p;
	const u8 *end;
};

/** urd_mp_array - read an array's header */
int urd_mp_array(struct urd_mp *m, u32 *n) URD_MUST_CHECK;
/** urd_mp_map - read a map's header; an empty array counts as an empty map (PHP) */
int urd_mp_map(struct urd_mp *m, u32 *n) URD_MUST_CHECK;
/** urd_mp_uint - read a non-negative integer of any width */
int urd_mp_uint(struct urd_mp *m, u64 *v) URD_MUST_CHECK;
/** urd_mp_int - read an integer of any width that fits */
int urd_mp_int(struct urd_mp *m, s64 *v) URD_MUST_CHECK;
/** urd_mp_bool - read true or false */
int urd_mp_bool(struct urd_mp *m, bool *v) URD_MUST_CHECK;
/** urd_mp_str - read a string or binary in place; any bytes, no NUL at the end */
int urd_mp_str(struct urd_mp *m, struct urd_span *s) URD_MUST_CHECK;
/** urd_mp_value - pass over one value of any type, returning its bytes */
int urd_mp_value(struct urd_mp *m, struct urd_span *s) URD_MUST_CHECK;
/**
 * urd_mp_value_within - the same for a value inside of @depth containers
 *
 * Return: 0, -EBADMSG, -E2BIG if it nests so deep that all together exceed
 * URD_NESTING_MAX.
 */
int urd_mp_value_within(struct urd_mp *m, u32 depth, struct urd_span *s) URD_MUST_CHECK;
/** urd_mp_is_nil - is the next value nil? Does not advance. */
bool urd_mp_is_nil(const struct urd_mp *m);
/**
 * urd_mp_find - find the value of a string key in the map at the cursor
 *
 * Return: 0, -ENOENT, -EBADMSG (not a map). @m is not advanced.
 */
int urd_mp_find(const struct urd_mp *m, const char *key, struct urd_mp *value) URD_MUST_CHECK;
/** urd_span_is - are the bytes exactly those of the string? */
bool urd_span_is(struct urd_span s, const char *str);

#endif /* URD_MP_H */
