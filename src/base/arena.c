// SPDX-License-Identifier: MIT
/*
 * Buddy allocator over reserved addresses.  One mapping holds the blocks, then
 * a byte of state for each smallest block, then a list node for each: no
 * bookkeeping lies inside a block, so a free block can lose its pages and can
 * be poisoned as a whole.  A block's "order" here is 0 for the smallest size.
 *
 * One ring thread per arena; the only system calls are those that map and
 * return pages.
 */
#include "base/arena.h"

#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
/* Shadow memory is memory too: of a large free block only the start is guarded. */
#define arena_poison(p, n) __asan_poison_memory_region(p, urd_min(n, (size_t)1 << 20))
#define arena_unpoison(p, n) __asan_unpoison_memory_region(p, n)
#else
#define arena_poison(p, n) ((void)0)
#define arena_unpoison(p, n) ((void)0)
#endif

#define ARENA_GRAIN ((size_t)1 << 20)
#define ARENA_SIZE_MAX ((size_t)1 << 40)
/* Blocks up to this order (16 KiB) are kept unmerged, this many of each. */
#define KEEP_ORDER_MAX (14u - URD_ARENA_MIN_ORDER)
#define KEEP_MAX 32u
/* From here on a block's pages cost more to hold than to fault in again. */
#define RETURN_MIN ((size_t)1 << 20)

/* Upper bits of a map byte; the lower ones are the order.  0: no block begins here. */
#define BLOCK_FREE 0x40u
#define BLOCK_KEPT 0x80u
#define BLOCK_USED 0xc0u

#define BLOCK_NONE SIZE_MAX

static size_t arena_blocks(const struct urd_arena *a)
{
	return a->size >> URD_ARENA_MIN_ORDER;
}

static size_t arena_mapped(const struct urd_arena *a)
{
	return a->size + arena_blocks(a) * (1 + sizeof(struct urd_list));
}

static struct urd_list *arena_nodes(const struct urd_arena *a)
{
	/* The size is a multiple of 1 MiB, which keeps the nodes aligned. */
	return (struct urd_list *)(void *)(a->map + arena_blocks(a));
}

/* The largest block there can be: a power of two that fits at offset 0. */
static size_t arena_largest(const struct urd_arena *a)
{
	size_t pow2 = (size_t)1 << (63 - __builtin_clzll(a->size));

	return urd_min(pow2, (size_t)1 << URD_ARENA_MAX_ORDER);
}

static size_t order_bytes(u32 order)
{
	return (size_t)1 << (order + URD_ARENA_MIN_ORDER);
}

static u32 order_of(size_t size)
{
	if (size <= order_bytes(0))
		return 0;
	return (u32)(64 - __builtin_clzll(size - 1)) - URD_ARENA_MIN_ORDER;
}

static void block_mark(struct urd_arena *a, size_t i, u32 state, u32 order)
{
	u8 *p = a->base + (i << URD_ARENA_MIN_ORDER);

	a->map[i] = (u8)(state | order);
	if (state == BLOCK_USED)
		arena_unpoison(p, order_bytes(order));
	else
		arena_poison(p, order_bytes(order));
	(void)p;
}

static void block_add_free(struct urd_arena *a, size_t i, u32 order)
{
	struct urd_list *node = arena_nodes(a) + i;

	block_mark(a, i, BLOCK_FREE, order);
	urd_list_init(node);
	urd_list_push_front(&a->free[order], node);
}

/* Free a block, together with its buddy if that is free, and so on upwards. */
static void block_merge(struct urd_arena *a, size_t i, u32 order)
{
	while (order < URD_ARENA_ORDERS - 1) {
		size_t buddy = i ^ (size_t)1 << order;

		if (buddy >= arena_blocks(a) || a->map[buddy] != (BLOCK_FREE | order))
			break;
		urd_list_del(arena_nodes(a) + buddy);
		a->map[buddy] = 0;
		a->map[i] = 0;
		i = urd_min(i, buddy);
		order++;
	}
	block_add_free(a, i, order);
}

/* Take a free block of the order, splitting a larger one if need be. */
static size_t block_take(struct urd_arena *a, u32 order)
{
	struct urd_list *node;
	u32 k = order;
	size_t i;

	while (k < URD_ARENA_ORDERS && urd_list_empty(&a->free[k]))
		k++;
	if (k == URD_ARENA_ORDERS)
		return BLOCK_NONE;
	node = urd_list_pop(&a->free[k]);
	i = (size_t)(node - arena_nodes(a));
	urd_assert(a->map[i] == (BLOCK_FREE | k));
	while (k > order) {
		k--;
		block_add_free(a, i + ((size_t)1 << k), k);
	}
	return i;
}

static size_t keep_take(struct urd_arena *a, u32 order)
{
	struct urd_list *node = urd_list_pop(&a->keep[order]);

	if (!node)
		return BLOCK_NONE;
	a->kept[order]--;
	return (size_t)(node - arena_nodes(a));
}

static bool keep_put(struct urd_arena *a, size_t i, u32 order)
{
	struct urd_list *node = arena_nodes(a) + i;

	if (order > KEEP_ORDER_MAX || a->kept[order] == KEEP_MAX)
		return false;
	block_mark(a, i, BLOCK_KEPT, order);
	urd_list_init(node);
	urd_list_push_front(&a->keep[order], node);
	a->kept[order]++;
	return true;
}

/* Merge all kept blocks. Return: was there any? */
static bool keep_flush(struct urd_arena *a)
{
	bool any = false;
	u32 order;
	size_t i;

	for (order = 0; order <= KEEP_ORDER_MAX; order++) {
		while ((i = keep_take(a, order)) != BLOCK_NONE) {
			block_merge(a, i, order);
			any = true;
		}
	}
	return any;
}

/* Fill the free lists with the largest aligned blocks that the size holds. */
static void arena_carve(struct urd_arena *a)
{
	size_t i = 0;
	u32 order = URD_ARENA_ORDERS - 1;

	while (i < arena_blocks(a)) {
		while (i + ((size_t)1 << order) > arena_blocks(a))
			order--;
		block_add_free(a, i, order);
		i += (size_t)1 << order;
	}
}

int urd_arena_init(struct urd_arena *a, size_t size)
{
	void *p;
	u32 i;

	if (size > ARENA_SIZE_MAX)
		return -ENOMEM;
	memset(a, 0, sizeof(*a));
	a->size = urd_max((size + ARENA_GRAIN - 1) & ~(ARENA_GRAIN - 1), ARENA_GRAIN);
	p = mmap(NULL, arena_mapped(a), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	a->base = p;
	a->map = a->base + a->size;
	for (i = 0; i < URD_ARENA_ORDERS; i++) {
		urd_list_init(&a->free[i]);
		urd_list_init(&a->keep[i]);
	}
	arena_carve(a);
	return 0;
}

void urd_arena_fini(struct urd_arena *a)
{
	urd_assert(a->used == 0);
	arena_unpoison(a->base, a->size);
	munmap(a->base, arena_mapped(a));
	memset(a, 0, sizeof(*a));
}

int urd_arena_get(struct urd_arena *a, size_t size, struct urd_buf *buf)
{
	u32 order;
	size_t i;

	urd_assert(size);
	if (size > arena_largest(a))
		return -EMSGSIZE;
	order = order_of(size);
	i = keep_take(a, order);
	if (i == BLOCK_NONE)
		i = block_take(a, order);
	if (i == BLOCK_NONE && keep_flush(a))
		i = block_take(a, order);
	if (i == BLOCK_NONE)
		return -ENOMEM;
	block_mark(a, i, BLOCK_USED, order);
	buf->p = a->base + (i << URD_ARENA_MIN_ORDER);
	buf->cap = (u32)order_bytes(order);
	a->used += buf->cap;
	a->used_max = urd_max(a->used_max, a->used);
	return 0;
}

void urd_arena_put(struct urd_arena *a, struct urd_buf *buf)
{
	size_t off;
	size_t i;
	u32 order;

	if (!buf->p)
		return;
	off = (size_t)(buf->p - a->base);
	i = off >> URD_ARENA_MIN_ORDER;
	order = order_of(buf->cap);
	/* Not ours, put twice, or moved: each would hand one block to two owners. */
	urd_assert(off < a->size && (i << URD_ARENA_MIN_ORDER) == off);
	urd_assert(a->map[i] == (BLOCK_USED | order));
	urd_assert(a->used >= buf->cap);
	a->used -= buf->cap;
	if (buf->cap >= RETURN_MIN)
		madvise(buf->p, buf->cap, MADV_DONTNEED);
	if (!keep_put(a, i, order))
		block_merge(a, i, order);
	buf->p = NULL;
	buf->cap = 0;
}
