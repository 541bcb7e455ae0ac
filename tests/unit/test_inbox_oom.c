// SPDX-License-Identifier: MIT
/*
 * An inbox whose arena has run out: it waits, loses nothing, and goes on when
 * a block was put back.
 */
#include "wire/inbox.h"

#include "wire/rpc.h"

#include "gen.h"

#include <criterion/criterion.h>

#define ARENA_BYTES ((size_t)8 << 20)

static struct urd_arena arena;

static void arena_up(void)
{
	cr_assert_eq(urd_arena_init(&arena, ARENA_BYTES), 0);
}

/* Whoever leaks a block, or puts one twice, fails here. */
static void arena_down(void)
{
	urd_arena_fini(&arena);
}

/* One read of at most @n bytes, as the kernel would do it. */
static size_t read_some(struct urd_inbox *in, const u8 *p, size_t n)
{
	u8 *place;
	u32 room;

	cr_assert_eq(urd_inbox_space(in, &place, &room), 0);
	cr_assert_gt(room, 0);
	n = urd_min(n, (size_t)room);
	memcpy(place, p, n);
	urd_inbox_commit(in, (u32)n);
	return n;
}

TestSuite(inbox_oom, .init = arena_up, .fini = arena_down);

/* Take every block of the arena down to @keep free bytes. */
static u32 exhaust(struct urd_buf *taken, size_t keep)
{
	struct urd_buf reserve = { 0 };
	u32 n = 0;
	size_t size;

	if (keep)
		cr_assert_eq(urd_arena_get(&arena, keep, &reserve), 0);
	for (size = ARENA_BYTES; size >= 512; size /= 2)
		while (!urd_arena_get(&arena, size, &taken[n]))
			n++;
	urd_arena_put(&arena, &reserve);
	return n;
}

static void release(struct urd_buf *taken, u32 n)
{
	while (n)
		urd_arena_put(&arena, &taken[--n]);
}

Test(inbox_oom, out_of_memory_loses_nothing_of_small_frames)
{
	struct bytes b = bytes_of("00 00 00 01 c0 00 00 00 02 cc ff");
	struct urd_buf taken[64];
	struct urd_inbox in;
	struct urd_frame f;
	u32 room;
	u32 n;
	u8 *p;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 1u << 20, 4096);
	n = exhaust(taken, 0);
	cr_assert_eq(urd_inbox_space(&in, &p, &room), -ENOMEM);
	release(taken, n);
	n = exhaust(taken, 4096);
	read_some(&in, b.p, b.len);
	cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	release(taken, n);
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.p[0], 0xc0);
	urd_arena_put(&arena, &f.buf);
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.p[1], 0xff);
	urd_arena_put(&arena, &f.buf);
	cr_assert_eq(urd_inbox_next(&in, &f), 0);
	urd_inbox_reset(&in);
}

/* The reader may go on into what is left of the chunk; then it has to wait. */
Test(inbox_oom, out_of_memory_loses_nothing_of_a_large_frame)
{
	struct urd_buf taken[64];
	struct urd_inbox in;
	struct urd_frame f;
	u32 sent = 0;
	u32 room;
	u32 n;
	u32 i;
	u8 *p;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 1u << 20, 512);
	n = exhaust(taken, 512);
	while (!urd_inbox_space(&in, &p, &room)) {
		for (i = 0; i < urd_min(room, 100u); i++, sent++)
			p[i] = (u8)(sent < 4 ? 3000u >> 8 * (3 - sent) : sent);
		urd_inbox_commit(&in, i);
		cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	}
	cr_assert_eq(sent, 512 - URD_HEADROOM);
	release(taken, n);
	cr_assert_eq(urd_inbox_next(&in, &f), 0);
	while (sent < 3004) {
		cr_assert_eq(urd_inbox_space(&in, &p, &room), 0);
		cr_assert_leq(sent + room, 3004);
		for (i = 0; i < room; i++, sent++)
			p[i] = (u8)sent;
		urd_inbox_commit(&in, room);
	}
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	for (i = 0; i < 3000; i++)
		cr_assert_eq(f.p[i], (u8)(i + 4));
	urd_arena_put(&arena, &f.buf);
	urd_inbox_reset(&in);
}

Test(inbox_oom, out_of_memory_loses_nothing_of_plain_values)
{
	struct bytes b = bytes_of("92 da 03 e8");
	struct urd_buf taken[64];
	struct urd_inbox in;
	struct urd_frame f;
	u32 n;

	memset(b.p + b.len, 'x', 1000);
	b.len += 1000;
	bytes_hex(&b, "07");
	urd_inbox_init(&in, &arena, URD_DIALECT_PLAIN, 2000, 512);
	n = exhaust(taken, 512);
	read_some(&in, b.p, 300);
	cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	release(taken, n);
	cr_assert_eq(urd_inbox_next(&in, &f), 0);
	cr_assert_eq(read_some(&in, b.p + 300, b.len - 300), b.len - 300);
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.len, b.len);
	cr_assert(!memcmp(f.p, b.p, b.len));
	urd_arena_put(&arena, &f.buf);
	urd_inbox_reset(&in);
}

/* Hand-out fails after the scan is done: the value must not be scanned on. */
Test(inbox_oom, a_scanned_value_waits_for_its_block)
{
	struct bytes b = bytes_of("92 c0 c0 93 c0 c0 c0");
	struct urd_buf taken[64];
	struct urd_inbox in;
	struct urd_frame f;
	u32 n;

	urd_inbox_init(&in, &arena, URD_DIALECT_PLAIN, 2000, 512);
	n = exhaust(taken, 512);
	read_some(&in, b.p, 5);
	cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	read_some(&in, b.p + 5, 2);
	cr_assert_eq(urd_inbox_next(&in, &f), -ENOMEM);
	release(taken, n);
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.len, 3);
	urd_arena_put(&arena, &f.buf);
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.len, 4);
	urd_arena_put(&arena, &f.buf);
	urd_inbox_reset(&in);
}
