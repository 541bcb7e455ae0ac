// SPDX-License-Identifier: MIT
/*
 * The table of the worker slot: (state, event) -> (state, actions).
 *
 * No system call, no clock, no state.  A cell that is not here can't happen:
 * whatever a worker does reaches this table as READY, ANSWER, LATE, BAD,
 * IO_FAIL or GONE, and each of those has a row wherever it is possible.
 * docs/states.md is made from this file by scripts/states.c.
 */
#include "fsm/slot_fsm.h"

#define NAME(n, text) #n,
static const char *const state_names[] = { URD_SLOT_STATES(NAME) };
static const char *const event_names[] = { URD_SLOT_EVENTS(NAME) };
static const char *const act_names[] = { URD_SLOT_ACTS(NAME) };
#undef NAME

static_assert(ARRAY_SIZE(state_names) == SLOT_NR, "each state has a name");
static_assert(ARRAY_SIZE(event_names) == SEV_NR, "each event has a name");
static_assert(ARRAY_SIZE(act_names) == SACT_NR, "each action has a name");
static_assert(SLOT_NR <= UINT8_MAX, "a state must fit urd_slot_row.next");
static_assert(SACT_NR <= 32, "the actions must fit urd_slot_row.acts");
static_assert(SACT_BIT_REPLY_TIME < SACT_BIT_REPLY_LOST, "the reason before the rest");
static_assert(SACT_BIT_REPLY_CANCEL < SACT_BIT_REPLY_LOST, "the reason before the rest");
static_assert(SACT_BIT_DISARM < SACT_BIT_ARM_BOOT, "drop before set");
static_assert(SACT_BIT_REAP < SACT_BIT_REPLY_OK, "down before up");
static_assert(SACT_BIT_VACATED == SACT_NR - 1, "the pool may start the slot at once");

/* clang-format off */
#define TO(s, a) { .used = 1, .next = SLOT_##s, .acts = (a) }
#define A SACT
/* killed at once; (a) is what else it takes: a deadline to drop, callers to answer */
#define DIE(a) TO(KILLING, A(SIG_KILL) | (a))
/* asked by signal, since it let a milder deadline pass or never was ready */
#define TERM(a) TO(TERMING, A(SIG_TERM) | A(ARM_TERM) | (a))
/* nothing left to do for it: end of file */
#define STOP TO(STOPPING, A(CLOSE_TASK) | A(ARM_STOP))
#define FREED(a) TO(VACANT, A(REAP) | A(VACATED) | (a))
#define FAILED(a) TO(BACKOFF, A(REAP) | A(ARM_BACKOFF) | (a))

static const struct urd_slot_row table[SLOT_NR][SEV_NR] = {
	[SLOT_VACANT] = {
		[SEV_START]		= TO(SPAWNING, A(SPAWN)),
		[SEV_RETIRE]		= TO(VACANT, 0),
		[SEV_KILL]		= TO(VACANT, 0),
	},
	[SLOT_SPAWNING] = {
		[SEV_SPAWNED]		= TO(BOOTING, A(ARM_BOOT)),
		[SEV_SPAWNED_UNWANTED]	= DIE(0),
		[SEV_SPAWN_FAIL]	= TO(BACKOFF, A(ARM_BACKOFF)),
		[SEV_SPAWN_FAIL_UNWANTED] = TO(VACANT, A(VACATED)),
		[SEV_RETIRE]		= TO(SPAWNING, A(MARK_UNWANTED)),
		[SEV_KILL]		= TO(SPAWNING, A(MARK_UNWANTED)),
	},
	[SLOT_BOOTING] = {
		[SEV_READY]		= TO(IDLE, A(DISARM) | A(BOOTED)),
		[SEV_BAD]		= DIE(A(DISARM)),
		[SEV_IO_FAIL]		= DIE(A(DISARM)),
		[SEV_DUE]		= DIE(0),
		[SEV_RETIRE]		= TERM(0),
		[SEV_KILL]		= DIE(A(DISARM)),
		[SEV_GONE_EARLY]	= FAILED(0),
	},
	[SLOT_IDLE] = {
		[SEV_DISPATCH]		= TO(BUSY, A(SEND_REQ)),
		[SEV_BAD]		= DIE(0),
		[SEV_IO_FAIL]		= DIE(0),
		[SEV_RETIRE]		= STOP,
		[SEV_KILL]		= DIE(0),
		[SEV_GONE]		= FREED(0),
		[SEV_GONE_EARLY]	= FAILED(0),
	},
	[SLOT_BUSY] = {
		[SEV_DISPATCH]		= TO(BUSY, A(SEND_REQ)),
		[SEV_ANSWER]		= TO(BUSY, A(REPLY_OK)),
		[SEV_EMPTIED]		= TO(IDLE, 0),
		[SEV_BAD]		= DIE(A(REPLY_LOST)),
		[SEV_IO_FAIL]		= DIE(A(REPLY_LOST)),
		[SEV_EXEC_DUE]		= TO(GRACE, A(REPLY_TIME) | A(SEND_CANCEL) | A(ARM_GRACE)),
		[SEV_EXEC_DUE_HARD]	= DIE(A(REPLY_TIME) | A(REPLY_LOST)),
		[SEV_CANCEL]		= TO(GRACE,
					     A(REPLY_CANCEL) | A(SEND_CANCEL) | A(ARM_GRACE)),
		[SEV_CANCEL_HARD]	= DIE(A(REPLY_CANCEL) | A(REPLY_LOST)),
		[SEV_RETIRE]		= TO(RETIRING, 0),
		[SEV_KILL]		= DIE(A(REPLY_LOST)),
		[SEV_GONE]		= FREED(A(REPLY_LOST)),
		[SEV_GONE_EARLY]	= FAILED(A(REPLY_LOST)),
	},
	[SLOT_GRACE] = {
		[SEV_ANSWER]		= TO(GRACE, A(REPLY_OK)),
		[SEV_LATE]		= TO(GRACE, A(COUNT_LATE)),
		[SEV_CLEARED]		= TO(BUSY, A(DISARM)),
		[SEV_EMPTIED]		= TO(IDLE, A(DISARM)),
		[SEV_BAD]		= DIE(A(DISARM) | A(REPLY_LOST)),
		[SEV_IO_FAIL]		= DIE(A(DISARM) | A(REPLY_LOST)),
		[SEV_EXEC_DUE]		= TO(GRACE, A(REPLY_TIME) | A(SEND_CANCEL)),
		[SEV_EXEC_DUE_HARD]	= DIE(A(DISARM) | A(REPLY_TIME) | A(REPLY_LOST)),
		[SEV_CANCEL]		= TO(GRACE, A(REPLY_CANCEL) | A(SEND_CANCEL)),
		[SEV_CANCEL_HARD]	= DIE(A(DISARM) | A(REPLY_CANCEL) | A(REPLY_LOST)),
		[SEV_DUE]		= TERM(A(REPLY_LOST)),
		/* the grace deadline goes on, or one overdue request could hold up a drain */
		[SEV_RETIRE]		= TO(RETIRING, 0),
		[SEV_KILL]		= DIE(A(DISARM) | A(REPLY_LOST)),
		[SEV_GONE]		= FREED(A(DISARM) | A(REPLY_LOST)),
		[SEV_GONE_EARLY]	= FAILED(A(REPLY_LOST)),
	},
	[SLOT_RETIRING] = {
		[SEV_ANSWER]		= TO(RETIRING, A(REPLY_OK)),
		[SEV_LATE]		= TO(RETIRING, A(COUNT_LATE)),
		/* what is left is in time: it must not be cut off by the grace of another */
		[SEV_CLEARED]		= TO(RETIRING, A(DISARM)),
		[SEV_EMPTIED]		= STOP,
		[SEV_BAD]		= DIE(A(DISARM) | A(REPLY_LOST)),
		[SEV_IO_FAIL]		= DIE(A(DISARM) | A(REPLY_LOST)),
		[SEV_EXEC_DUE]		= DIE(A(DISARM) | A(REPLY_TIME) | A(REPLY_LOST)),
		[SEV_EXEC_DUE_HARD]	= DIE(A(DISARM) | A(REPLY_TIME) | A(REPLY_LOST)),
		[SEV_CANCEL]		= TO(RETIRING,
					     A(REPLY_CANCEL) | A(SEND_CANCEL) | A(ARM_GRACE)),
		[SEV_CANCEL_HARD]	= DIE(A(DISARM) | A(REPLY_CANCEL) | A(REPLY_LOST)),
		[SEV_DUE]		= TERM(A(REPLY_LOST)),
		[SEV_RETIRE]		= TO(RETIRING, 0),
		[SEV_KILL]		= DIE(A(DISARM) | A(REPLY_LOST)),
		[SEV_GONE]		= FREED(A(DISARM) | A(REPLY_LOST)),
		[SEV_GONE_EARLY]	= FAILED(A(REPLY_LOST)),
	},
	[SLOT_STOPPING] = {
		[SEV_BAD]		= DIE(A(DISARM)),
		/* it closes its streams on the way out */
		[SEV_IO_FAIL]		= TO(STOPPING, 0),
		[SEV_DUE]		= TERM(0),
		[SEV_RETIRE]		= TO(STOPPING, 0),
		[SEV_KILL]		= DIE(A(DISARM)),
		[SEV_GONE]		= FREED(A(DISARM)),
		/* ready, then its own wish to leave: without a pause that is a spawn loop */
		[SEV_GONE_EARLY]	= FAILED(0),
	},
	[SLOT_TERMING] = {
		[SEV_READY]		= TO(TERMING, 0),
		[SEV_LATE]		= TO(TERMING, A(COUNT_LATE)),
		[SEV_EMPTIED]		= TO(TERMING, 0),
		[SEV_BAD]		= TO(TERMING, 0),
		[SEV_IO_FAIL]		= TO(TERMING, 0),
		[SEV_DUE]		= DIE(0),
		[SEV_RETIRE]		= TO(TERMING, 0),
		[SEV_KILL]		= DIE(A(DISARM)),
		[SEV_GONE]		= FREED(A(DISARM)),
		[SEV_GONE_EARLY]	= FAILED(0),
	},
	[SLOT_KILLING] = {
		[SEV_READY]		= TO(KILLING, 0),
		[SEV_LATE]		= TO(KILLING, A(COUNT_LATE)),
		[SEV_EMPTIED]		= TO(KILLING, 0),
		[SEV_BAD]		= TO(KILLING, 0),
		[SEV_IO_FAIL]		= TO(KILLING, 0),
		[SEV_RETIRE]		= TO(KILLING, 0),
		[SEV_KILL]		= TO(KILLING, 0),
		[SEV_GONE]		= FREED(0),
		[SEV_GONE_EARLY]	= FAILED(0),
	},
	[SLOT_BACKOFF] = {
		[SEV_DUE]		= TO(VACANT, A(VACATED)),
		[SEV_RETIRE]		= TO(VACANT, A(DISARM) | A(VACATED)),
		[SEV_KILL]		= TO(VACANT, A(DISARM) | A(VACATED)),
	},
};
/* clang-format on */

#undef TO
#undef A
#undef DIE
#undef TERM
#undef STOP
#undef FREED
#undef FAILED

struct urd_slot_row urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e)
{
	urd_assert(s < SLOT_NR);
	urd_assert(e < SEV_NR);
	return table[s][e];
}

const char *urd_slot_state_name(enum urd_slot_state s)
{
	return s < SLOT_NR ? state_names[s] : "?";
}

const char *urd_slot_event_name(enum urd_slot_event e)
{
	return e < SEV_NR ? event_names[e] : "?";
}

const char *urd_slot_act_name(enum urd_slot_act a)
{
	return a < SACT_NR ? act_names[a] : "?";
}
