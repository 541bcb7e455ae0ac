// SPDX-License-Identifier: MIT
/*
 * Goal: the slot table is total, answers each request once, never lets a worker
 * overstay, and does nothing without a reason.
 * Method: `struct world' models what exists outside the table (process, streams,
 * requests, the deadline); events change it, and so do actions.  Every situation
 * that can be reached is walked with every event its world can raise.  After
 * each step the state's contract, the promises about requests and the duties
 * of the event are compared with the world, so that a wrong cell shows.
 */
#include "fsm/slot_fsm.h"

#include <criterion/criterion.h>
#include <signal.h>

enum timer { T_NONE, T_BOOT, T_GRACE, T_STOP, T_TERM, T_BACKOFF };
/* ANSWER or LATE was just handled, the event that follows from it is still to come */
enum pending { P_NONE, P_ANSWERED, P_LATE };

/* requests that the worker takes at once */
#define ROOM 3
/* several times the number of situations */
#define SEEN_MAX 8192u
#define ANY 9

struct world {
	u8 asked;    /* the spawner has not answered yet */
	u8 unwanted; /* and its answer will come too late */
	u8 child;
	u8 exited; /* dead, and not reaped yet */
	u8 ready;
	u8 served;  /* has answered a request in its life */
	u8 leave;   /* somebody wants it to leave */
	u8 excused; /* and that is not just itself */
	u8 closed, term, kill;
	u8 owed, overdue;
	u8 pending, timer; /* enums */
};

/* one step under examination */
struct step {
	enum urd_slot_state s;
	enum urd_slot_event e;
	bool own_wish; /* RETIRE came from the worker */
	struct urd_slot_row row;
	struct world before;
	struct world w;
	u8 subject; /* the event is about one owed request that has no reply yet */
	u8 told;    /* cancel was sent for it */
	u32 effect; /* actions that made a difference */
};

struct promise {
	u8 asked, unwanted, child, ready, leave, closed, term, kill, timer;
};

/* clang-format off */
static const struct promise contract[SLOT_NR] = {
	/*		    asked unw. child ready leave closed term kill timer */
	[SLOT_VACANT]	= { 0,    0,   0,    0,    0,    0,     0,   0,   T_NONE },
	[SLOT_SPAWNING]	= { 1,    ANY, 0,    0,    0,    0,     0,   0,   T_NONE },
	[SLOT_BOOTING]	= { 0,    0,   1,    0,    0,    0,     0,   0,   T_BOOT },
	[SLOT_IDLE]	= { 0,    0,   1,    1,    0,    0,     0,   0,   T_NONE },
	[SLOT_BUSY]	= { 0,    0,   1,    1,    0,    0,     0,   0,   T_NONE },
	[SLOT_GRACE]	= { 0,    0,   1,    1,    0,    0,     0,   0,   T_GRACE },
	[SLOT_RETIRING]	= { 0,    0,   1,    1,    1,    0,     0,   0,   ANY },
	[SLOT_STOPPING]	= { 0,    0,   1,    1,    1,    1,     0,   0,   T_STOP },
	[SLOT_TERMING]	= { 0,    0,   1,    ANY,  ANY,  ANY,   1,   0,   T_TERM },
	[SLOT_KILLING]	= { 0,    0,   1,    ANY,  ANY,  ANY,   ANY, 1,   T_NONE },
	[SLOT_BACKOFF]	= { 0,    0,   0,    0,    0,    0,     0,   0,   T_BACKOFF },
};
/* clang-format on */

#define MUST(st, cond)                                                         \
	cr_assert(cond, "%s + %s -> %s: " #cond, urd_slot_state_name((st)->s), \
		  urd_slot_event_name((st)->e), urd_slot_state_name((st)->row.next))

static bool has_request(const struct world *w)
{
	return w->owed + w->overdue > 0;
}

/* Which follow-up of ANSWER or LATE is true now?  SEV_NR if none. */
static enum urd_slot_event follow_up(const struct world *w)
{
	if (w->pending && !has_request(w))
		return SEV_EMPTIED;
	if (w->pending == P_LATE && !w->overdue)
		return SEV_CLEARED;
	return SEV_NR;
}

static bool has_room(enum urd_slot_state s, const struct world *w)
{
	return (s == SLOT_IDLE || s == SLOT_BUSY) && w->owed < ROOM;
}

/* Can the world raise @e?  Everything here is about the world, but for DISPATCH. */
static bool possible(enum urd_slot_state s, enum urd_slot_event e, const struct world *w)
{
	if (follow_up(w) != SEV_NR && e != SEV_DISPATCH && e != SEV_RETIRE && e != SEV_KILL)
		return e == follow_up(w);
	switch (e) {
	case SEV_START:
		return !w->child && !w->asked && w->timer == T_NONE;
	case SEV_SPAWNED:
	case SEV_SPAWN_FAIL:
		return w->asked && !w->unwanted;
	case SEV_SPAWNED_UNWANTED:
	case SEV_SPAWN_FAIL_UNWANTED:
		return w->asked && w->unwanted;
	case SEV_READY:
		return w->child && !w->ready;
	case SEV_DISPATCH:
		return has_room(s, w);
	case SEV_ANSWER:
	case SEV_EXEC_DUE:
	case SEV_EXEC_DUE_HARD:
	case SEV_CANCEL:
	case SEV_CANCEL_HARD:
		return w->owed > 0;
	case SEV_LATE:
		return w->overdue > 0;
	case SEV_BAD:
	case SEV_IO_FAIL:
		return w->child;
	case SEV_DUE:
		return w->timer != T_NONE;
	case SEV_RETIRE:
	case SEV_KILL:
		return true;
	case SEV_GONE:
		return w->child && (w->served || w->excused);
	case SEV_GONE_EARLY:
		return w->child && !w->served && !w->excused;
	case SEV_CLEARED:
	case SEV_EMPTIED:
	case SEV_NR:
		return false;
	}
	return false;
}

/* What the event itself changes, before any action. */
static void happen(struct step *st)
{
	struct world *w = &st->w;
	enum urd_slot_event e = st->e;

	if (e == SEV_SPAWNED || e == SEV_SPAWNED_UNWANTED) {
		w->child = 1;
		w->leave = w->excused = w->unwanted;
	}
	if (w->asked && e != SEV_RETIRE && e != SEV_KILL)
		w->asked = w->unwanted = 0;
	if (e == SEV_READY)
		w->ready = 1;
	if (e == SEV_ANSWER || e == SEV_EXEC_DUE || e == SEV_EXEC_DUE_HARD || e == SEV_CANCEL ||
	    e == SEV_CANCEL_HARD)
		st->subject = 1;
	if (e == SEV_LATE) {
		w->overdue--;
		w->pending = P_LATE;
	}
	if (e == SEV_CLEARED || e == SEV_EMPTIED)
		w->pending = P_NONE;
	if (e == SEV_DUE)
		w->timer = T_NONE;
	if ((e == SEV_RETIRE || e == SEV_KILL) && w->child) {
		w->leave = 1;
		w->excused |= !st->own_wish;
	}
	if (e == SEV_GONE || e == SEV_GONE_EARLY)
		w->exited = 1;
}

static bool arm(struct step *st, enum timer t)
{
	/* armed anew, a deadline would never come */
	MUST(st, st->w.timer != t || t == T_GRACE);
	if (t == T_GRACE && st->w.timer != T_NONE) {
		MUST(st, st->w.timer == T_GRACE);
		return false;
	}
	st->w.timer = t;
	return true;
}

static bool do_timer(struct step *st, enum urd_slot_act a)
{
	static const u8 timer_of[SACT_NR] = {
		[SACT_BIT_ARM_BOOT] = T_BOOT,	    [SACT_BIT_ARM_GRACE] = T_GRACE,
		[SACT_BIT_ARM_STOP] = T_STOP,	    [SACT_BIT_ARM_TERM] = T_TERM,
		[SACT_BIT_ARM_BACKOFF] = T_BACKOFF,
	};
	bool ran = st->w.timer != T_NONE;

	if (timer_of[a])
		return arm(st, timer_of[a]);
	MUST(st, a == SACT_BIT_DISARM);
	st->w.timer = T_NONE;
	return ran;
}

/* The one request that the event is about gets its one reply. */
static void reply(struct step *st, bool still_there)
{
	struct world *w = &st->w;

	MUST(st, st->subject);
	MUST(st, w->owed > 0);
	st->subject = 0;
	w->owed--;
	w->overdue += still_there;
}

static void do_signal(struct step *st, u8 *sent)
{
	MUST(st, st->w.child);
	MUST(st, !st->w.exited); /* the pid may be somebody else's by now */
	MUST(st, !st->w.kill);
	MUST(st, !*sent);
	*sent = 1;
}

static bool do_down(struct step *st, enum urd_slot_act a)
{
	struct world *w = &st->w;
	bool was = w->unwanted;

	if (a == SACT_BIT_SPAWN) {
		MUST(st, st->e == SEV_START && !w->child && !w->asked);
		w->asked = 1;
	} else if (a == SACT_BIT_SEND_REQ) {
		MUST(st, st->e == SEV_DISPATCH);
		w->owed++;
	} else if (a == SACT_BIT_SEND_CANCEL) {
		MUST(st, st->e == SEV_EXEC_DUE || st->e == SEV_CANCEL);
		MUST(st, st->subject);
		st->told = 1;
	} else if (a == SACT_BIT_CLOSE_TASK) {
		MUST(st, w->child && !w->exited && w->ready);
		MUST(st, !w->closed && !w->term && !w->kill);
		MUST(st, !has_request(w));
		w->closed = 1;
	} else if (a == SACT_BIT_SIG_TERM) {
		do_signal(st, &w->term);
	} else if (a == SACT_BIT_SIG_KILL) {
		do_signal(st, &w->kill);
	} else if (a == SACT_BIT_MARK_UNWANTED) {
		MUST(st, w->asked && (st->e == SEV_RETIRE || st->e == SEV_KILL));
		w->unwanted = 1;
		return !was;
	} else if (a == SACT_BIT_REAP) {
		MUST(st, w->exited);
		*w = (struct world){ .owed = w->owed, .timer = w->timer };
	} else {
		return do_timer(st, a);
	}
	return true;
}

static bool do_up(struct step *st, enum urd_slot_act a)
{
	struct world *w = &st->w;
	bool owed = w->owed > 0;

	if (a == SACT_BIT_REPLY_OK) {
		MUST(st, st->e == SEV_ANSWER);
		reply(st, false);
		w->served = 1;
		w->pending = P_ANSWERED;
	} else if (a == SACT_BIT_COUNT_LATE) {
		MUST(st, st->e == SEV_LATE);
	} else if (a == SACT_BIT_REPLY_TIME) {
		MUST(st, st->e == SEV_EXEC_DUE || st->e == SEV_EXEC_DUE_HARD);
		reply(st, true);
	} else if (a == SACT_BIT_REPLY_CANCEL) {
		MUST(st, st->e == SEV_CANCEL || st->e == SEV_CANCEL_HARD);
		reply(st, true);
	} else if (a == SACT_BIT_REPLY_LOST) {
		MUST(st, !st->subject);
		MUST(st, w->term || w->kill || !w->child);
		w->overdue += w->child ? w->owed : 0;
		w->owed = 0;
		return owed;
	} else if (a == SACT_BIT_BOOTED) {
		MUST(st, st->e == SEV_READY && !w->term && !w->kill);
	} else {
		MUST(st, a == SACT_BIT_VACATED);
		MUST(st, st->row.next == SLOT_VACANT && st->s != SLOT_VACANT);
	}
	return true;
}

/* The shell's part: what happened, then the actions in bit order. */
static void carry_out(struct step *st)
{
	happen(st);
	for (enum urd_slot_act a = 0; a < SACT_NR; a++) {
		if (!(st->row.acts & 1u << a))
			continue;
		if (a < SACT_BIT_REPLY_OK ? do_down(st, a) : do_up(st, a))
			st->effect |= 1u << a;
	}
	MUST(st, !(st->row.acts >> SACT_NR));
	if (follow_up(&st->w) == SEV_NR)
		st->w.pending = P_NONE;
}

#define KEEP(f) MUST(st, p->f == ANY || st->w.f == p->f)

static void check_contract(const struct step *st)
{
	const struct promise *p = &contract[st->row.next];

	KEEP(asked);
	KEEP(unwanted);
	KEEP(child);
	KEEP(ready);
	KEEP(leave);
	KEEP(closed);
	KEEP(term);
	KEEP(kill);
	KEEP(timer);
}

static void check_requests(const struct step *st)
{
	const struct world *w = &st->w;
	enum urd_slot_state n = st->row.next;

	MUST(st, !st->subject); /* answered once, by the right action */
	if (w->owed)
		MUST(st, n == SLOT_BUSY || n == SLOT_GRACE || n == SLOT_RETIRING);
	if (n == SLOT_BUSY)
		MUST(st, !w->overdue && (w->owed || w->pending));
	if (n == SLOT_GRACE)
		MUST(st, w->overdue || w->pending);
	if (n == SLOT_RETIRING)
		MUST(st, has_request(w) || w->pending);
	if (n == SLOT_IDLE || n == SLOT_STOPPING)
		MUST(st, !has_request(w) && !w->pending);
	/* an overdue request has no deadline of its own any more */
	if (w->overdue && !w->term && !w->kill)
		MUST(st, w->timer == T_GRACE);
	if (w->timer == T_GRACE)
		MUST(st, w->overdue || w->pending);
}

/* One means for one end: what could hide behind another action is not there. */
static void check_thrift(const struct step *st)
{
	const u32 timers = SACT(DISARM) | SACT(ARM_BOOT) | SACT(ARM_GRACE) | SACT(ARM_STOP) |
			   SACT(ARM_TERM) | SACT(ARM_BACKOFF);
	const u32 ends = SACT(CLOSE_TASK) | SACT(SIG_TERM) | SACT(SIG_KILL) | SACT(REAP);

	MUST(st, __builtin_popcount(st->row.acts & timers) <= 1);
	MUST(st, __builtin_popcount(st->row.acts & (ends | SACT(SEND_CANCEL))) <= 1);
}

/* SIGKILL and SIGTERM need a reason, and some events are one. */
static void check_force(const struct step *st)
{
	const struct world *w = &st->w, *b = &st->before;
	enum urd_slot_event e = st->e;
	bool gone = e == SEV_GONE || e == SEV_GONE_EARLY;

	if (w->kill && !b->kill)
		MUST(st, e == SEV_BAD || e == SEV_IO_FAIL || e == SEV_KILL || e == SEV_DUE ||
				 e == SEV_EXEC_DUE_HARD || e == SEV_CANCEL_HARD ||
				 e == SEV_SPAWNED_UNWANTED || (e == SEV_EXEC_DUE && b->leave));
	if (w->term && !b->term)
		MUST(st, e == SEV_DUE || (e == SEV_RETIRE && !b->ready));
	if (e == SEV_BAD)
		MUST(st, w->kill || w->term);
	if (e == SEV_IO_FAIL)
		MUST(st, w->kill || w->term || w->closed);
	if (e == SEV_KILL && b->child)
		MUST(st, w->kill);
	if (e == SEV_EXEC_DUE_HARD || e == SEV_CANCEL_HARD || e == SEV_SPAWNED_UNWANTED)
		MUST(st, w->kill);
	if (e == SEV_EXEC_DUE && b->leave)
		MUST(st, w->kill);
	if (e == SEV_DUE && (b->timer == T_BOOT || b->timer == T_TERM))
		MUST(st, w->kill);
	if (e == SEV_DUE && (b->timer == T_GRACE || b->timer == T_STOP))
		MUST(st, w->term && !w->kill);
	if (b->child && !gone)
		MUST(st, w->child);
}

/* What must follow an event, beyond what must not. */
static void check_duties(const struct step *st)
{
	const struct world *w = &st->w, *b = &st->before;
	enum urd_slot_event e = st->e;
	enum urd_slot_state n = st->row.next;

	if ((e == SEV_EXEC_DUE || e == SEV_CANCEL) && !w->kill)
		MUST(st, st->told);
	if (e == SEV_LATE)
		MUST(st, st->row.acts & SACT(COUNT_LATE));
	if (e == SEV_DISPATCH)
		MUST(st, w->owed == b->owed + 1);
	if (e == SEV_READY && !b->term && !b->kill)
		MUST(st, st->row.acts & SACT(BOOTED));
	if ((e == SEV_RETIRE || e == SEV_KILL) && b->asked)
		MUST(st, w->unwanted);
	if ((e == SEV_RETIRE || e == SEV_KILL) && !b->asked && !b->child)
		MUST(st, n == SLOT_VACANT);
	if (e == SEV_SPAWN_FAIL || e == SEV_GONE_EARLY)
		MUST(st, n == SLOT_BACKOFF);
	if (e == SEV_SPAWN_FAIL_UNWANTED || e == SEV_GONE)
		MUST(st, n == SLOT_VACANT);
	if (e == SEV_DUE && b->timer == T_BACKOFF)
		MUST(st, n == SLOT_VACANT);
	if (e == SEV_START)
		MUST(st, w->asked);
	if (n == SLOT_VACANT && st->s != SLOT_VACANT)
		MUST(st, st->row.acts & SACT(VACATED));
	if (e == SEV_RETIRE && b->timer == T_GRACE)
		MUST(st, w->timer == T_GRACE);
}

/* Take one step from (@s, @w) and compare; returns it for the walk to go on from. */
static struct step step_take(enum urd_slot_state s, const struct world *w, enum urd_slot_event e,
			     bool own_wish)
{
	struct step st = {
		.s = s,
		.e = e,
		.own_wish = own_wish,
		.row = urd_slot_fsm(s, e),
		.before = *w,
		.w = *w,
	};

	cr_assert(st.row.used == 1, "%s has no row for %s", urd_slot_state_name(s),
		  urd_slot_event_name(e));
	cr_assert(st.row.next < SLOT_NR);
	carry_out(&st);
	check_contract(&st);
	check_requests(&st);
	check_thrift(&st);
	check_force(&st);
	check_duties(&st);
	return st;
}

/* The situations seen so far: a list to go through and a hash to find doubles. */
struct situation {
	enum urd_slot_state s;
	struct world w;
};

static struct situation seen[SEEN_MAX];
static u16 bucket[2 * SEEN_MAX]; /* index in seen[] plus one */
static unsigned int seen_nr;

static void seen_add(enum urd_slot_state s, const struct world *w)
{
	u32 h = 2166136261u ^ s;

	for (size_t i = 0; i < sizeof(*w); i++)
		h = (h ^ ((const u8 *)w)[i]) * 16777619u;
	for (h ^= h >> 15;; h++) {
		u16 *b = &bucket[h % ARRAY_SIZE(bucket)];

		if (!*b) {
			cr_assert(seen_nr < SEEN_MAX);
			seen[seen_nr++] = (struct situation){ .s = s, .w = *w };
			*b = (u16)seen_nr;
			return;
		}
		if (seen[*b - 1].s == s && !memcmp(&seen[*b - 1].w, w, sizeof(*w)))
			return;
	}
}

/* per row: actions that made a difference somewhere, and whether it was reached */
static u32 effect[SLOT_NR][SEV_NR];
static bool reached[SLOT_NR][SEV_NR];

static void walk(void)
{
	static const struct world nothing;

	seen_add(SLOT_VACANT, &nothing);
	for (unsigned int k = 0; k < seen_nr; k++) {
		enum urd_slot_state s = seen[k].s;
		struct world w = seen[k].w;

		for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
			/* only a ready worker has a wish */
			int wishes = e == SEV_RETIRE && w.child && w.ready ? 2 : 1;

			for (int i = 0; possible(s, e, &w) && i < wishes; i++) {
				struct step st = step_take(s, &w, e, i == 1);

				reached[s][e] = true;
				effect[s][e] |= st.effect;
				seen_add(st.row.next, &st.w);
			}
		}
	}
}

Test(slot_fsm, every_situation_and_event)
{
	bool visited[SLOT_NR] = { 0 };

	walk();
	for (unsigned int k = 0; k < seen_nr; k++)
		visited[seen[k].s] = true;
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		cr_assert(visited[s], "%s is never reached", urd_slot_state_name(s));
}

Test(slot_fsm, every_row_and_action_has_a_use)
{
	walk();
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++) {
		for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
			struct urd_slot_row r = urd_slot_fsm(s, e);

			cr_assert_eq(r.used, reached[s][e], "%s + %s can't happen",
				     urd_slot_state_name(s), urd_slot_event_name(e));
			cr_assert_eq(r.acts, effect[s][e], "%s + %s: idle actions %#x",
				     urd_slot_state_name(s), urd_slot_event_name(e),
				     r.acts & ~effect[s][e]);
		}
	}
}

/* What urd itself does next to a worker that is deaf and dumb. */
static enum urd_slot_event next_of_urd(const struct world *w)
{
	if (follow_up(w) != SEV_NR)
		return follow_up(w);
	if (w->timer != T_NONE)
		return SEV_DUE;
	return w->owed ? SEV_EXEC_DUE : SEV_NR;
}

Test(slot_fsm, a_deaf_worker_is_got_rid_of)
{
	walk();
	for (unsigned int k = 0; k < seen_nr; k++) {
		enum urd_slot_state s = seen[k].s;
		struct world w = seen[k].w;
		enum urd_slot_event e = SEV_RETIRE;
		/* at most: follow-up, grace, stop, term */
		int steps_max = 5;

		if (!w.child)
			continue;
		for (; e != SEV_NR; e = next_of_urd(&w)) {
			struct step st = step_take(s, &w, e, false);

			cr_assert(steps_max--, "from %s", urd_slot_state_name(seen[k].s));
			s = st.row.next;
			w = st.w;
		}
		cr_assert(w.kill, "from %s", urd_slot_state_name(seen[k].s));
		cr_assert_eq(w.owed, 0);
	}
}

Test(slot_fsm, names_are_distinct)
{
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		for (enum urd_slot_state o = 0; o < s; o++)
			cr_assert_str_neq(urd_slot_state_name(s), urd_slot_state_name(o));
	for (enum urd_slot_event e = 0; e < SEV_NR; e++)
		for (enum urd_slot_event o = 0; o < e; o++)
			cr_assert_str_neq(urd_slot_event_name(e), urd_slot_event_name(o));
	for (enum urd_slot_act a = 0; a < SACT_NR; a++)
		for (enum urd_slot_act o = 0; o < a; o++)
			cr_assert_str_neq(urd_slot_act_name(a), urd_slot_act_name(o));
	cr_assert_str_eq(urd_slot_state_name(SLOT_IDLE), "IDLE");
	cr_assert_str_eq(urd_slot_event_name(SEV_GONE_EARLY), "GONE_EARLY");
	cr_assert_str_eq(urd_slot_act_name(SACT_BIT_VACATED), "VACATED");
	cr_assert_str_eq(urd_slot_state_name(SLOT_NR), "?");
	cr_assert_str_eq(urd_slot_event_name(SEV_NR), "?");
	cr_assert_str_eq(urd_slot_act_name(SACT_NR), "?");
}

Test(slot_fsm, no_such_state, .signal = SIGABRT)
{
	urd_slot_fsm(SLOT_NR, SEV_START);
}

Test(slot_fsm, no_such_event, .signal = SIGABRT)
{
	urd_slot_fsm(SLOT_VACANT, SEV_NR);
}
