// SPDX-License-Identifier: MIT
/*
 * Any stream in any dialect, once as it comes and once cut into pieces: both
 * give the same payloads and the same end, every payload has its headroom, and
 * every block comes back.  Three bytes of the input choose dialect, chunk and
 * cuts; the arena is so small that it runs out now and then.
 */
#include "wire/inbox.h"

#include "wire/rpc.h"

#include <stdlib.h>

#define FRAME_MAX 5000u
#define HELD_MAX 8u
#define ARENA_TAKEN ((1u << 20) - (1u << 15))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct urd_arena arena;

/* What a run gave: a sum over all payloads, and how it ended. */
struct outcome {
	u64 sum;
	u32 n;
	int ret;
	bool clean;
};

struct held {
	struct urd_buf buf[HELD_MAX];
	u32 n;
};

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* Leave 32 KiB free: the largest chunk with its frame, and little besides. */
static void arena_up(void)
{
	static struct urd_buf taken[5];
	u32 i;

	check(!urd_arena_init(&arena, 1u << 20));
	for (i = 0; i < ARRAY_SIZE(taken); i++)
		check(!urd_arena_get(&arena, (size_t)1 << (19 - i), &taken[i]));
	check(arena.used == ARENA_TAKEN);
}

static void release(struct held *h)
{
	while (h->n)
		urd_arena_put(&arena, &h->buf[--h->n]);
}

static void take(struct outcome *o, struct held *h, const struct urd_frame *f)
{
	u32 i;

	check(f->len && f->len <= FRAME_MAX);
	check(f->p >= f->buf.p + URD_HEADROOM && f->p + f->len <= f->buf.p + f->buf.cap);
	for (i = 0; i < f->len; i++)
		o->sum = o->sum * 1099511628211ull + f->p[i];
	o->sum = o->sum * 31 + f->len;
	o->n++;
	/* The receiver may do as it likes with all of the block. */
	memset(f->buf.p, 0x5a, f->buf.cap);
	if (h->n == HELD_MAX)
		release(h);
	h->buf[h->n++] = f->buf;
}

/* Return: does the stream go on? */
static bool drain(struct urd_inbox *in, struct outcome *o, struct held *h)
{
	struct urd_frame f;

	for (;;) {
		o->ret = urd_inbox_next(in, &f);
		if (o->ret == 1) {
			take(o, h, &f);
		} else if (o->ret == -ENOMEM) {
			check(h->n);
			release(h);
		} else {
			return !o->ret;
		}
	}
}

static struct outcome run(const u8 *p, size_t len, const u8 *how, u32 seed)
{
	struct outcome o = { .sum = 0 };
	struct held h = { .n = 0 };
	struct urd_inbox in;
	size_t at = 0;
	u32 room;
	u8 *place;

	urd_inbox_init(&in, &arena, (enum urd_dialect)(how[0] % 3), FRAME_MAX, 512u << how[1] % 5);
	while (at < len) {
		size_t n = len - at;

		if (urd_inbox_space(&in, &place, &room)) {
			check(h.n);
			release(&h);
			check(!urd_inbox_space(&in, &place, &room));
		}
		if (seed) {
			seed = seed * 1664525 + 1013904223;
			n = urd_min(n, (size_t)1 + (seed >> 16) % (seed >> 31 ? 600 : 5));
		}
		n = urd_min(n, (size_t)room);
		check(n);
		memcpy(place, p + at, n);
		urd_inbox_commit(&in, (u32)n);
		at += n;
		if (!drain(&in, &o, &h))
			break;
		if (seed & 1u << 20)
			urd_inbox_trim(&in);
	}
	o.clean = urd_inbox_is_clean(&in);
	urd_inbox_reset(&in);
	release(&h);
	check(arena.used == ARENA_TAKEN);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole;
	struct outcome cut;

	if (size < 4)
		return 0;
	if (!arena.base)
		arena_up();
	whole = run(data + 3, size - 3, data, 0);
	cut = run(data + 3, size - 3, data, data[2] + 1u);
	check(whole.sum == cut.sum && whole.n == cut.n && whole.ret == cut.ret);
	check(whole.ret < 0 || whole.clean == cut.clean);
	return 0;
}
