// SPDX-License-Identifier: MIT
/*
 * The arena against a model that knows nothing of buddies: a map of which 512
 * bytes are out, and what "there is room" means by definition.
 */
#include "base/arena.h"

#include "gen.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define UNIT 512u
#define MODEL_BYTES (4 * MIB)
#define MODEL_BLOCKS 4096u

/* What is out: per 512 bytes, 0 or 1 plus the number of the block that has them. */
struct model {
	u32 owner[MODEL_BYTES / UNIT];
	struct urd_buf out[MODEL_BLOCKS];
	size_t used;
	size_t used_max;
};

static size_t block_size(size_t size)
{
	size_t cap = UNIT;

	while (cap < size)
		cap *= 2;
	return cap;
}

static bool model_has_room(const struct model *m, size_t cap)
{
	size_t i;
	size_t k;

	for (i = 0; i < MODEL_BYTES / UNIT; i += cap / UNIT) {
		for (k = 0; k < cap / UNIT && !m->owner[i + k]; k++)
			;
		if (k == cap / UNIT)
			return true;
	}
	return false;
}

static void model_fill(struct model *m, const struct urd_arena *a, const struct urd_buf *b, u32 who)
{
	size_t first = (size_t)(b->p - a->base) / UNIT;
	size_t i;

	for (i = first; i < first + b->cap / UNIT; i++) {
		cr_assert_eq(m->owner[i] != 0, who == 0, "block given twice or lost");
		m->owner[i] = who;
	}
}

static void model_get(struct model *m, struct urd_arena *a, u32 i, size_t size)
{
	struct urd_buf *b = &m->out[i];
	int ret = urd_arena_get(a, size, b);

	if (ret) {
		cr_assert_eq(ret, -ENOMEM);
		cr_assert(!model_has_room(m, block_size(size)), "refused %zu though free", size);
		return;
	}
	cr_assert_eq(b->cap, block_size(size));
	cr_assert_eq((size_t)(b->p - a->base) % b->cap, 0);
	model_fill(m, a, b, i + 1);
	m->used += b->cap;
	m->used_max = urd_max(m->used_max, m->used);
	memcpy(b->p, &i, sizeof(i));
	memcpy(b->p + b->cap - sizeof(i), &i, sizeof(i));
}

static void model_put(struct model *m, struct urd_arena *a, u32 i)
{
	struct urd_buf *b = &m->out[i];

	cr_assert(!memcmp(b->p, &i, sizeof(i)), "first bytes were overwritten");
	cr_assert(!memcmp(b->p + b->cap - sizeof(i), &i, sizeof(i)), "last bytes too");
	model_fill(m, a, b, 0);
	m->used -= b->cap;
	urd_arena_put(a, b);
	cr_assert_null(b->p);
	cr_assert_eq(b->cap, 0);
}

static void model_run(u64 seed, u32 steps, u32 order_max)
{
	static struct model m;
	struct urd_arena a;
	struct urd_buf b;
	u32 i;

	memset(&m, 0, sizeof(m));
	cr_assert_eq(urd_arena_init(&a, MODEL_BYTES), 0);
	while (steps--) {
		i = gen_below(&seed, MODEL_BLOCKS);
		if (m.out[i].p)
			model_put(&m, &a, i);
		else
			model_get(&m, &a, i,
				  1 + gen_below(&seed, 1u << gen_below(&seed, order_max)));
		cr_assert_eq(a.used, m.used);
		cr_assert_eq(a.used_max, m.used_max);
	}
	for (i = 0; i < MODEL_BLOCKS; i++)
		if (m.out[i].p)
			model_put(&m, &a, i);
	cr_assert_eq(urd_arena_get(&a, MODEL_BYTES, &b), 0, "did not merge to one block again");
	urd_arena_put(&a, &b);
	urd_arena_fini(&a);
}

Test(arena, agrees_with_a_model_on_small_blocks)
{
	model_run(1, 60000, 13);
}

Test(arena, agrees_with_a_model_on_mixed_blocks)
{
	model_run(2, 20000, 22);
	model_run(3, 20000, 17);
}

Test(arena, gives_the_smallest_block_that_fits)
{
	struct urd_arena a;
	struct urd_buf b = { 0 };
	size_t size;

	cr_assert_eq(urd_arena_init(&a, 256 * MIB), 0);
	for (size = 1; size <= 128 * MIB; size *= 2) {
		cr_assert_eq(urd_arena_get(&a, size, &b), 0);
		cr_assert_eq(b.cap, urd_max(size, (size_t)UNIT));
		urd_arena_put(&a, &b);
		if (size == 128 * MIB)
			break;
		cr_assert_eq(urd_arena_get(&a, size + 1, &b), 0);
		cr_assert_eq(b.cap, urd_max(2 * size, (size_t)UNIT));
		urd_arena_put(&a, &b);
	}
	urd_arena_fini(&a);
}

Test(arena, refuses_what_can_never_fit)
{
	struct urd_arena a;
	struct urd_buf b = { 0 };

	cr_assert_eq(urd_arena_init(&a, 256 * MIB), 0);
	cr_assert_eq(urd_arena_get(&a, 128 * MIB + 1, &b), -EMSGSIZE);
	urd_arena_fini(&a);
	cr_assert_eq(urd_arena_init(&a, 3 * MIB), 0);
	cr_assert_eq(urd_arena_get(&a, 2 * MIB + 1, &b), -EMSGSIZE);
	cr_assert_eq(urd_arena_get(&a, 2 * MIB, &b), 0);
	urd_arena_put(&a, &b);
	urd_arena_fini(&a);
}

Test(arena, out_of_memory_ends_with_a_put)
{
	struct urd_buf b[8];
	struct urd_buf more;
	struct urd_arena a;
	u32 i;

	cr_assert_eq(urd_arena_init(&a, MIB), 0);
	for (i = 0; i < 8; i++)
		cr_assert_eq(urd_arena_get(&a, MIB / 8, &b[i]), 0);
	cr_assert_eq(a.used, a.size);
	cr_assert_eq(urd_arena_get(&a, 1, &more), -ENOMEM);
	urd_arena_put(&a, &b[3]);
	cr_assert_eq(urd_arena_get(&a, 1, &more), 0);
	cr_assert_eq(urd_arena_get(&a, MIB / 8, &b[3]), -ENOMEM);
	urd_arena_put(&a, &more);
	cr_assert_eq(urd_arena_get(&a, MIB / 8, &b[3]), 0, "kept blocks were not merged");
	for (i = 0; i < 8; i++)
		urd_arena_put(&a, &b[i]);
	urd_arena_fini(&a);
}

Test(arena, sizes_are_rounded_up_and_wholly_usable)
{
	struct urd_buf b[7];
	struct urd_buf more;
	struct urd_arena a;
	u32 i;

	cr_assert_eq(urd_arena_init(&a, 6 * MIB + 1), 0);
	cr_assert_eq(a.size, 7 * MIB);
	for (i = 0; i < 7; i++)
		cr_assert_eq(urd_arena_get(&a, MIB, &b[i]), 0);
	cr_assert_eq(urd_arena_get(&a, 1, &more), -ENOMEM);
	for (i = 0; i < 7; i++)
		urd_arena_put(&a, &b[i]);
	cr_assert_eq(urd_arena_get(&a, 4 * MIB, &more), 0);
	urd_arena_put(&a, &more);
	urd_arena_fini(&a);
	cr_assert_eq(urd_arena_init(&a, ((size_t)1 << 40) + 1), -ENOMEM);
}

static size_t resident_pages(const u8 *p, size_t len)
{
	size_t pages = len / (size_t)sysconf(_SC_PAGESIZE);
	u8 *vec = calloc(pages, 1);
	size_t n = 0;
	size_t i;

	cr_assert_not_null(vec);
	cr_assert_eq(mincore((void *)(uintptr_t)p, len, vec), 0);
	for (i = 0; i < pages; i++)
		n += vec[i] & 1;
	free(vec);
	return n;
}

Test(arena, costs_no_pages_until_touched)
{
	struct urd_arena a;
	struct urd_buf b;

	cr_assert_eq(urd_arena_init(&a, 512 * MIB), 0);
	cr_assert_eq(urd_arena_get(&a, 64 * MIB, &b), 0);
	cr_assert_eq(resident_pages(a.base, a.size), 0);
	urd_arena_put(&a, &b);
	urd_arena_fini(&a);
}

Test(arena, large_blocks_return_their_pages)
{
	struct urd_arena a;
	struct urd_buf b;
	u8 *p;

	cr_assert_eq(urd_arena_init(&a, 16 * MIB), 0);
	cr_assert_eq(urd_arena_get(&a, 2 * MIB, &b), 0);
	p = b.p;
	memset(p, 1, b.cap);
	cr_assert_gt(resident_pages(p, 2 * MIB), 0);
	urd_arena_put(&a, &b);
	cr_assert_eq(resident_pages(p, 2 * MIB), 0);
	urd_arena_fini(&a);
}

Test(arena, putting_nothing_is_fine)
{
	struct urd_arena a;
	struct urd_buf b = { 0 };

	cr_assert_eq(urd_arena_init(&a, 0), 0);
	urd_arena_put(&a, &b);
	cr_assert_eq(a.used, 0);
	urd_arena_fini(&a);
}

Test(arena, putting_twice_aborts, .signal = SIGABRT)
{
	struct urd_buf b;
	struct urd_buf again;
	struct urd_arena a;

	cr_assert_eq(urd_arena_init(&a, MIB), 0);
	cr_assert_eq(urd_arena_get(&a, 1, &b), 0);
	again = b;
	urd_arena_put(&a, &b);
	urd_arena_put(&a, &again);
}

Test(arena, ending_with_a_block_out_aborts, .signal = SIGABRT)
{
	struct urd_arena a;
	struct urd_buf b;

	cr_assert_eq(urd_arena_init(&a, MIB), 0);
	cr_assert_eq(urd_arena_get(&a, 1, &b), 0);
	urd_arena_fini(&a);
}
