/* SPDX-License-Identifier: MIT */
/*
 * Buffers for frames: a buddy allocator over one stretch of reserved address
 * space.  Blocks are contiguous (a frame is read straight into its final place
 * and written from there), sizes are powers of two from 512 bytes up, and the
 * total is fixed at start: when it is used up, readers wait.  Pages cost memory
 * once they are touched.  Freed small blocks are kept unmerged for a while, so
 * that the common get and put are a pop and a push.
 *
 * Not thread-safe: an arena belongs to one ring thread.
 */
#ifndef URD_ARENA_H
#define URD_ARENA_H

#include "base/base.h"
#include "base/list.h"

/** Smallest block: 1 << 9 = 512 bytes; holds a small frame and its headroom. */
#define URD_ARENA_MIN_ORDER 9
/** Largest block: 1 << 27 = 128 MiB; a 64 MiB frame and its headroom fit. */
#define URD_ARENA_MAX_ORDER 27
#define URD_ARENA_ORDERS (URD_ARENA_MAX_ORDER - URD_ARENA_MIN_ORDER + 1)

/**
 * struct urd_buf - a block of an arena, or none
 * @p: first byte, aligned to the block's size within the arena; NULL if none
 * @cap: size in bytes, a power of two
 */
struct urd_buf {
	u8 *p;
	u32 cap;
};

/**
 * struct urd_arena - the allocator
 * @base: start of the reserved addresses
 * @size: bytes reserved, a multiple of the smallest block
 * @used: bytes in blocks that are out
 * @used_max: highest @used so far
 */
struct urd_arena {
	u8 *base;
	size_t size;
	size_t used;
	size_t used_max;
	struct urd_list free[URD_ARENA_ORDERS];
	u32 kept[URD_ARENA_ORDERS]; /* freed and unmerged blocks per order */
	struct urd_list keep[URD_ARENA_ORDERS];
	u8 *map; /* one byte per smallest block: state and order of the block that begins there */
};

/**
 * urd_arena_init - reserve address space; no page is touched yet
 * @a: the arena
 * @size: bytes, rounded up to 1 MiB; at most 1 TiB
 *
 * Return: 0 or -ENOMEM.
 */
int urd_arena_init(struct urd_arena *a, size_t size) URD_MUST_CHECK;

/** urd_arena_fini - give everything back; asserts that no block is out */
void urd_arena_fini(struct urd_arena *a);

/**
 * urd_arena_get - take a block
 * @a: the arena
 * @size: bytes needed, at least 1
 * @buf: set to a block of at least @size bytes
 *
 * Return: 0, -ENOMEM (nothing free), -EMSGSIZE (larger than the largest block).
 */
int urd_arena_get(struct urd_arena *a, size_t size, struct urd_buf *buf) URD_MUST_CHECK;

/** urd_arena_put - give a block back and clear @buf; an empty @buf is fine */
void urd_arena_put(struct urd_arena *a, struct urd_buf *buf);

#endif /* URD_ARENA_H */
