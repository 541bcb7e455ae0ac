// SPDX-License-Identifier: MIT
/*
 * Time, chance and the timeline.  Time goes from event to event and never by
 * itself; all chance comes from one generator; every note goes into a hash, so
 * that two runs of a seed can be compared by one number.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

struct sim sim;
struct sim_total sim_total;

/* Outside of the world: what lies beyond the counts need not be wiped. */
static struct sim_ev ev[SIM_EVENTS];
static struct sim_note notes[SIM_NOTES];

/* ---- chance: splitmix64 to seed, xoshiro256** to draw ---- */

static u64 rotl(u64 x, int k)
{
	return x << k | x >> (64 - k);
}

void rnd_seed(u64 seed)
{
	for (int i = 0; i < 4; i++) {
		u64 z = seed += 0x9e3779b97f4a7c15ull;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		sim.rng[i] = z ^ (z >> 31);
	}
}

static u64 rnd_next(void)
{
	u64 *s = sim.rng;
	u64 out = rotl(s[1] * 5, 7) * 9;
	u64 t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return out;
}

u64 rnd(u64 n)
{
	urd_assert(n > 0);
	return (u64)((unsigned __int128)rnd_next() * n >> 64);
}

u64 rnd_between(u64 lo, u64 hi)
{
	urd_assert(lo <= hi);
	return lo + rnd(hi - lo + 1);
}

u64 rnd_log(u64 lo, u64 hi)
{
	u64 steps = 0, top;

	urd_assert(lo > 0 && lo <= hi);
	while (lo << (steps + 1) <= hi)
		steps++;
	lo <<= rnd(steps + 1);
	top = urd_min(hi, 2 * lo - 1);
	return rnd_between(lo, top);
}

bool chance(u64 permille)
{
	return permille && rnd(1000) < permille;
}

u64 sim_delay(void)
{
	if (chance(sim.o.lag))
		return rnd(sim.o.lag_max);
	return 500 + rnd(4000);
}

/* ---- time: a binary heap ---- */

static bool ev_before(const struct sim_ev *a, const struct sim_ev *b)
{
	return a->t != b->t ? a->t < b->t : a->order < b->order;
}

void ev_push(u64 t, enum sim_ev_kind kind, u32 idx, u32 tag)
{
	struct sim_ev e = {
		.t = urd_max(t, sim.now),
		.order = sim.ev_order++,
		.idx = idx,
		.tag = tag,
		.kind = (u8)kind,
	};
	u32 i = sim.ev_nr++;

	urd_assert(sim.ev_nr < SIM_EVENTS);
	while (i && ev_before(&e, &ev[(i - 1) / 2])) {
		ev[i] = ev[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	ev[i] = e;
}

static struct sim_ev ev_pop(void)
{
	struct sim_ev top = ev[0], last = ev[--sim.ev_nr];
	u32 i = 0;

	for (;;) {
		u32 c = 2 * i + 1;

		if (c >= sim.ev_nr)
			break;
		if (c + 1 < sim.ev_nr && ev_before(&ev[c + 1], &ev[c]))
			c++;
		if (!ev_before(&ev[c], &last))
			break;
		ev[i] = ev[c];
		i = c;
	}
	ev[i] = last;
	return top;
}

u64 ev_next(void)
{
	return sim.ev_nr ? ev[0].t : URD_NEVER;
}

void ev_run(void)
{
	struct sim_ev e = ev_pop();

	sim.now = urd_max(sim.now, e.t);
	switch ((enum sim_ev_kind)e.kind) {
	case EV_OP:
		ring_ev_op(e.idx, e.tag);
		break;
	case EV_DEADLINE:
		ring_ev_deadline(e.idx, e.t);
		break;
	case EV_CANCEL:
		ring_ev_cancel(e.idx, e.tag);
		break;
	case EV_ACCEPT:
		ring_accept(e.idx);
		break;
	case EV_SPAWN:
		spawn_ev();
		break;
	case EV_KILL:
		if (sim.worker[e.idx].used && (u32)sim.worker[e.idx].pid == e.tag &&
		    !sim.worker[e.idx].dead)
			worker_die((u16)e.idx, CLD_KILLED, SIGKILL);
		break;
	case EV_WORKER:
		if (sim.worker[e.idx].sched == e.t)
			worker_step(e.idx);
		break;
	case EV_CLIENT:
		if (sim.client[e.idx].sched == e.t)
			client_step(e.idx);
		break;
	case EV_WORLD:
		world_ev(e.idx);
		break;
	}
}

/* ---- the timeline ---- */

struct note_text {
	const char *text;
	const char *a;
	const char *b;
	const char *c;
};

#define NOTE_TEXT(n, t, x, y, z) { t, x, y, z },
static const struct note_text note_texts[] = { SIM_NOTE_LIST(NOTE_TEXT) };
#undef NOTE_TEXT

static void note_print(FILE *f, const struct sim_note *n)
{
	const struct note_text *t = &note_texts[n->what];

	fprintf(f, "%14.6f ms  %-22s", (double)(n->t - sim.o.start_ns) / 1e6, t->text);
	if (n->what == NOTE_STEP) {
		fprintf(f, "slot=%u %s + %s\n", n->a,
			urd_slot_state_name((enum urd_slot_state)n->b),
			urd_slot_event_name((enum urd_slot_event)n->c));
		return;
	}
	fprintf(f, "%s=%u %s=%lld", t->a, n->a, t->b, (long long)n->b);
	if (*t->c != '-')
		fprintf(f, " %s=%lld", t->c, (long long)n->c);
	fputc('\n', f);
}

void sim_note(enum sim_note_kind what, u32 a, u64 b, u64 c)
{
	struct sim_note *n = &notes[sim.notes_nr++ % SIM_NOTES];

	*n = (struct sim_note){ .t = sim.now, .what = what, .a = a, .b = b, .c = c };
	sim.hash = (sim.hash ^ sim.now ^ (u64)what << 56 ^ (u64)a << 40 ^ b << 20 ^ c) *
		   0x9e3779b97f4a7c15ull;
	sim.hash ^= sim.hash >> 29;
	if (sim.trace)
		note_print(stdout, n);
}

#define OPTION_PRINT(n) fprintf(stderr, " %s=%llu", #n, (unsigned long long)sim.o.n);

void sim_report(void)
{
	u64 i = sim.notes_nr > 200 ? sim.notes_nr - 200 : 0;

	if (!sim.trace)
		for (; i < sim.notes_nr; i++)
			note_print(stderr, &notes[i % SIM_NOTES]);
	fprintf(stderr, "sim: options:");
	SIM_OPTIONS(OPTION_PRINT)
	fprintf(stderr,
		"\nsim: FAILED seed=%llu phase=%u turns=%llu; replay: sim --seed %llu --trace\n",
		(unsigned long long)sim.seed, sim.phase, (unsigned long long)sim.turns,
		(unsigned long long)sim.seed);
}

void sim_fail(const char *file, int line, const char *what)
{
	fflush(stdout);
	fprintf(stderr, "sim: %s:%d: %s\n", file, line, what);
	abort();
}
