/* SPDX-License-Identifier: MIT */
/*
 * Intrusive binary heap of points in time: the earliest is found at once, any
 * may be taken out.  The array is the caller's, sized for all that can be in it.
 */
#ifndef URD_HEAP_H
#define URD_HEAP_H

#include "base/base.h"

/** struct urd_timer - a point in time, a field of its owner
 * @due_ns: when
 * @at: place in the heap plus one, 0 if not in it
 * @kind: what the owner is; for the caller
 */
struct urd_timer {
	u64 due_ns;
	u32 at;
	u8 kind;
};

/** struct urd_heap - the heap; @v has room for @max timers */
struct urd_heap {
	struct urd_timer **v;
	u32 nr;
	u32 max;
};

static inline void urd_heap_place(struct urd_heap *h, u32 i, struct urd_timer *t)
{
	h->v[i] = t;
	t->at = i + 1;
}

/* Move @t, whose place @i is free, to where it belongs. */
static inline void urd_heap_sift(struct urd_heap *h, u32 i, struct urd_timer *t)
{
	while (i && h->v[(i - 1) / 2]->due_ns > t->due_ns) {
		urd_heap_place(h, i, h->v[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		u32 c = 2 * i + 1;

		if (c >= h->nr)
			break;
		if (c + 1 < h->nr && h->v[c + 1]->due_ns < h->v[c]->due_ns)
			c++;
		if (h->v[c]->due_ns >= t->due_ns)
			break;
		urd_heap_place(h, i, h->v[c]);
		i = c;
	}
	urd_heap_place(h, i, t);
}

/** urd_timer_is_set - is it in a heap? */
static inline bool urd_timer_is_set(const struct urd_timer *t)
{
	return t->at != 0;
}

/** urd_timer_clear - take a timer out, if it is in */
static inline void urd_timer_clear(struct urd_heap *h, struct urd_timer *t)
{
	struct urd_timer *last;
	u32 i;

	if (!t->at)
		return;
	i = t->at - 1;
	urd_assert(i < h->nr && h->v[i] == t);
	t->at = 0;
	last = h->v[--h->nr];
	if (last != t)
		urd_heap_sift(h, i, last);
}

/** urd_timer_set - put a timer in, or move it; URD_NEVER takes it out */
static inline void urd_timer_set(struct urd_heap *h, struct urd_timer *t, u64 due_ns)
{
	urd_timer_clear(h, t);
	t->due_ns = due_ns;
	if (due_ns == URD_NEVER)
		return;
	urd_assert(h->nr < h->max);
	urd_heap_sift(h, h->nr++, t);
}

/** urd_heap_next - when the earliest is due, URD_NEVER if there is none */
static inline u64 urd_heap_next(const struct urd_heap *h)
{
	return h->nr ? h->v[0]->due_ns : URD_NEVER;
}

/** urd_heap_pop - take out the earliest if it is due; NULL if none is */
static inline struct urd_timer *urd_heap_pop(struct urd_heap *h, u64 now_ns)
{
	struct urd_timer *t;

	if (!h->nr || h->v[0]->due_ns > now_ns)
		return NULL;
	t = h->v[0];
	urd_timer_clear(h, t);
	return t;
}

#endif /* URD_HEAP_H */
