/* SPDX-License-Identifier: MIT */
/*
 * The life of one worker slot, as a pure machine: which state follows which on
 * what event, and what has to be done on the way.  It decides and does nothing:
 * the shell (pool/slot.c) classifies what happened, asks urd_slot_fsm(), takes
 * over the next state and then carries out the actions in bit order.
 *
 * A slot has one deadline of its own (boot, grace, stop, term, backoff) besides
 * the exec deadline of each request, which is armed with the request and goes
 * when the request is answered.  Whether a slot may be given a request follows
 * from its state (IDLE, or BUSY with room), so no action says so: the shell
 * offers the slot to its pool whenever that becomes true.
 */
#ifndef URD_SLOT_FSM_H
#define URD_SLOT_FSM_H

#include "base/base.h"

/* clang-format off */

/*
 * The states: X(name, meaning).  A request is "owed" while its caller waits
 * and "overdue" once it was answered in the worker's stead and the worker
 * still has it.  Only BUSY, GRACE and RETIRING may owe.
 */
#define URD_SLOT_STATES(X)                                                                         \
	X(VACANT, "no child, nothing in flight")                                                   \
	X(SPAWNING, "the spawner was asked for a child")                                           \
	X(BOOTING, "child alive, ready message not seen; the boot deadline runs")                  \
	X(IDLE, "ready, no request with it")                                                       \
	X(BUSY, "one or more requests with it, none overdue")                                      \
	X(GRACE, "at least one request overdue, cancel was sent; takes nothing new, "              \
		 "the grace deadline runs")                                                        \
	X(RETIRING, "finishes what it has, takes nothing new; "                                    \
		    "the grace deadline runs if something is overdue")                             \
	X(STOPPING, "task input closed; exit awaited under the stop deadline")                     \
	X(TERMING, "SIGTERM sent; exit awaited under the term deadline")                           \
	X(KILLING, "SIGKILL sent; exit awaited, which needs no deadline")                          \
	X(BACKOFF, "died before it was of use, or was not spawned; the backoff deadline runs")

/*
 * The events: X(name, meaning).  The shell raises CLEARED or EMPTIED right
 * after ANSWER or LATE, if what it says is true once the actions of that first
 * event are done: those may have led the pool to DISPATCH, RETIRE or KILL.
 * A cancelled request whose worker can't be told and may live stays owed, to
 * nobody.  GONE and GONE_EARLY exclude each other; an exit while BOOTING is
 * always early.
 */
#define URD_SLOT_EVENTS(X)                                                                         \
	X(START, "the pool wants a worker here")                                                   \
	X(SPAWNED, "the child is there and still wanted")                                          \
	X(SPAWNED_UNWANTED, "the child is there, but RETIRE or KILL came meanwhile")               \
	X(SPAWN_FAIL, "no child could be made")                                                    \
	X(SPAWN_FAIL_UNWANTED, "no child could be made, and none is wanted any more")              \
	X(READY, "first ready message, valid; a second one is BAD")                                \
	X(DISPATCH, "a request is given to it; the shell has checked that there is room")          \
	X(ANSWER, "valid answer to a request that is owed")                                        \
	X(LATE, "valid answer to a request that was answered already")                             \
	X(CLEARED, "nothing is overdue any more, but something is owed")                           \
	X(EMPTIED, "no request is left with it")                                                   \
	X(BAD, "it broke the protocol: frame, msgid, order or size")                               \
	X(IO_FAIL, "a task or control stream ended or failed while the process lives")             \
	X(EXEC_DUE, "the deadline of an owed request passed; the worker can be told")              \
	X(EXEC_DUE_HARD, "same, but the worker knows no cancel or its control pipe is full")       \
	X(CANCEL, "the caller of an owed request gives up; the worker can be told")                \
	X(CANCEL_HARD, "same, but the worker can't be told and policy is to kill")                 \
	X(DUE, "the deadline of the slot itself passed")                                           \
	X(RETIRE, "leave when what you have is done: recycle, reload, drain, own wish")            \
	X(KILL, "leave now: forced drain, memory_hard, no heartbeat")                              \
	X(GONE, "exit seen, last bytes read, no operation of it in flight any more")               \
	X(GONE_EARLY, "same, but it never answered a request, "                                    \
		      "and nobody but itself wanted it to leave")

/*
 * The actions: X(name, meaning), in the order in which they are carried out.
 * The first block goes down, to the worker, the spawner and the timers; the
 * second goes up, to the pool.  Down comes first, so that a call up which comes
 * back with another event finds the slot settled.  REPLY_TIME and REPLY_CANCEL
 * come before REPLY_LOST, which takes whatever is left.
 */
#define URD_SLOT_ACTS(X)                                                                           \
	X(SPAWN, "ask the spawner for a child")                                                    \
	X(DISARM, "drop the deadline of the slot, if one runs")                                    \
	X(ARM_BOOT, "set the deadline of the slot: boot_timeout")                                  \
	X(ARM_GRACE, "set the deadline of the slot: grace; a running one is left alone")           \
	X(ARM_STOP, "set the deadline of the slot anew: stop_timeout")                             \
	X(ARM_TERM, "set the deadline of the slot anew: short")                                    \
	X(ARM_BACKOFF, "set the deadline of the slot anew: by the pool's failure count")           \
	X(SEND_REQ, "write the request and arm its exec deadline")                                 \
	X(SEND_CANCEL, "tell the worker which request nobody waits for")                           \
	X(CLOSE_TASK, "close the task input, which is end of file to the worker")                  \
	X(SIG_TERM, "send SIGTERM")                                                                \
	X(SIG_KILL, "send SIGKILL")                                                                \
	X(MARK_UNWANTED, "remember to raise the UNWANTED event when the spawner answers")          \
	X(REAP, "release pid, descriptors and buffers; owed requests stay for REPLY_LOST")         \
	X(REPLY_OK, "deliver the answer")                                                          \
	X(COUNT_LATE, "drop the answer and count it")                                              \
	X(REPLY_TIME, "answer the request with EXEC_TIMEOUT; it is overdue from now on")           \
	X(REPLY_CANCEL, "answer the request with CANCELLED; it is overdue from now on")            \
	X(REPLY_LOST, "answer every owed request with WORKER_DIED, or PROTOCOL after BAD")         \
	X(BOOTED, "tell the pool that the boot went well; it forgets its failures")                \
	X(VACATED, "tell the pool that the slot may be started again")

/* clang-format on */

#define URD_SLOT_ENUM(n, text) SLOT_##n,
/** enum urd_slot_state - where a slot is in its life; see URD_SLOT_STATES */
enum urd_slot_state { URD_SLOT_STATES(URD_SLOT_ENUM) SLOT_NR };
#undef URD_SLOT_ENUM

#define URD_SLOT_ENUM(n, text) SEV_##n,
/** enum urd_slot_event - what happened to a slot; see URD_SLOT_EVENTS */
enum urd_slot_event { URD_SLOT_EVENTS(URD_SLOT_ENUM) SEV_NR };
#undef URD_SLOT_ENUM

#define URD_SLOT_ENUM(n, text) SACT_BIT_##n,
/** enum urd_slot_act - bit number of an action; see URD_SLOT_ACTS */
enum urd_slot_act { URD_SLOT_ACTS(URD_SLOT_ENUM) SACT_NR };
#undef URD_SLOT_ENUM

/** SACT - an action as a bit of urd_slot_row.acts */
#define SACT(n) (1u << SACT_BIT_##n)

/**
 * struct urd_slot_row - what an event does to a slot
 * @used: 1 if the event can happen in that state
 * @next: enum urd_slot_state
 * @acts: SACT() bits
 */
struct urd_slot_row {
	u8 used;
	u8 next;
	u32 acts;
};

/**
 * urd_slot_fsm - look up what an event does
 * @s: state of the slot
 * @e: what happened
 *
 * An unused row means that the shell misjudged the event: nothing a worker, a
 * client or the clock can do leads to one.  Callers assert @used.
 *
 * Context: any.  Return: the row, by value.
 */
struct urd_slot_row urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e);

/** urd_slot_state_name - "IDLE" for SLOT_IDLE; "?" if out of range.  Context: any. */
const char *urd_slot_state_name(enum urd_slot_state s);

/** urd_slot_event_name - "GONE" for SEV_GONE; "?" if out of range.  Context: any. */
const char *urd_slot_event_name(enum urd_slot_event e);

/** urd_slot_act_name - "REAP" for SACT_BIT_REAP; "?" if out of range.  Context: any. */
const char *urd_slot_act_name(enum urd_slot_act a);

#endif /* URD_SLOT_FSM_H */
