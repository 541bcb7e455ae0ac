/* SPDX-License-Identifier: MIT */
/*
 * A pool: a queue of jobs, and slots whose idle workers take from it.  One queue
 * for all workers, so that no request waits behind a slow one while another
 * worker is idle; the warmest worker is chosen first.
 */
#ifndef URD_POOL_H
#define URD_POOL_H

#include "fsm/slot_fsm.h"
#include "pool/core.h"
#include "pool/slot.h"

/** struct urd_pool_stats - counters since start */
struct urd_pool_stats {
	u64 outcomes[URD_CODE_NR];
	u64 late;    /* answers that came after their caller had been answered */
	u64 retried; /* requests given to another worker, none of their bytes sent */
	u64 spawns;
	u64 exits;
	u64 failures; /* workers that died before they were of use, or did not start */
	u64 overruns; /* requests beyond max_jobs, because too many were away already */
	u64 exits_by[URD_WHY_NR];
};

/**
 * struct urd_pool - see the file comment
 * @conf: deep copy
 * @spec: how its workers are started
 * @slots: its part of core->slots, @slots_nr of them: workers that serve and
 *	others that are on their way out
 * @open: slots with room for a job, warmest first
 * @queue: jobs that wait, oldest first
 * @states: number of slots per state
 * @want: workers that should serve, min_workers to max_workers
 * @leaving: slots that serve and are to be replaced (slot->leave)
 * @scale_timer, @memory_timer: see enum urd_timer_kind
 * @failures: starts that failed in a row
 * @failed: callers are told at once that it does not work
 * @last_failure: what the last one was, for callers
 */
struct urd_pool {
	struct urd_core *core;
	struct urd_pool_conf conf;
	struct urd_spawn_spec spec;
	struct urd_slot *slots;
	u32 slots_nr;
	u32 index;
	struct urd_list open;
	struct urd_list queue;
	u32 queued;
	u64 queued_bytes;
	u32 states[SLOT_NR];
	u32 want;
	u32 leaving;
	struct urd_timer scale_timer;
	struct urd_timer memory_timer;
	u32 failures;
	bool failed;
	char last_failure[256];
	struct urd_pool_stats stats;
};

/**
 * urd_pool_init - copy the configuration and build the environment
 *
 * Return: 0 or -ENOMEM, -E2BIG (too many environment variables).
 */
int urd_pool_init(struct urd_pool *pool, struct urd_core *core, u32 index,
		  const struct urd_pool_conf *conf) URD_MUST_CHECK;

/** urd_pool_fini - free what urd_pool_init() made */
void urd_pool_fini(struct urd_pool *pool);

/** urd_pool_slots - slots that a pool of this configuration needs */
u32 urd_pool_slots(const struct urd_pool_conf *conf);

/** urd_pool_submit - accept a job, or answer it at once with what is wrong */
void urd_pool_submit(struct urd_pool *pool, struct urd_job *job);

/** urd_pool_withdraw - take a queued job out of the queue */
void urd_pool_withdraw(struct urd_pool *pool, struct urd_job *job);

/** urd_pool_requeue - a job that no worker has seen goes back to the head of the queue */
void urd_pool_requeue(struct urd_pool *pool, struct urd_job *job);

/** urd_pool_kick - give queued jobs to open slots; drop what has expired */
void urd_pool_kick(struct urd_pool *pool);

/** urd_pool_fill - start workers until there are as many as wanted */
void urd_pool_fill(struct urd_pool *pool);

/** urd_pool_failure - a worker died before it was of use: when to try again, ns from now */
u64 urd_pool_failure(struct urd_pool *pool);

/** urd_pool_booted - a worker is ready */
void urd_pool_booted(struct urd_pool *pool);

/* ---- recycle.c: who leaves, and how many there should be ---- */

/** urd_pool_leave - a serving worker is to be replaced, when it can be done without */
void urd_pool_leave(struct urd_slot *slot, enum urd_why why);

/** urd_pool_leave_all - all of them are; Return: how many will be replaced */
u32 urd_pool_leave_all(struct urd_pool *pool, enum urd_why why);

/** urd_pool_left - a slot is no longer serving; whatever was planned for it is over */
void urd_pool_left(struct urd_slot *slot);

/** urd_pool_balance - let leave whom the pool can do without; start whom it needs */
void urd_pool_balance(struct urd_pool *pool);

/** urd_pool_target - workers that there should be now, those for replacement included */
u32 urd_pool_target(const struct urd_pool *pool);

/** urd_pool_scale - set the number of workers, 1 to max_workers; Return: the number set */
u32 urd_pool_scale(struct urd_pool *pool, u32 n);

/** urd_pool_reload - replace every worker, one after the other; Return: how many */
u32 urd_pool_reload(struct urd_pool *pool);

/** urd_pool_scale_due - the scale timer: requests wait too long */
void urd_pool_scale_due(struct urd_pool *pool);

/** urd_pool_memory_due - the memory timer: look at the busy workers */
void urd_pool_memory_due(struct urd_pool *pool);

/** urd_pool_age - set the timer of a serving slot: age and idleness */
void urd_pool_age(struct urd_slot *slot);

/** urd_pool_aged - that timer is due */
void urd_pool_aged(struct urd_slot *slot);

/** urd_pool_served - a slot has finished a request: max_jobs, memory_soft */
void urd_pool_served(struct urd_slot *slot);

/** urd_pool_begun - a slot was given a request */
void urd_pool_begun(struct urd_slot *slot);

/** urd_pool_welcome - a slot is ready: draw its limits, look at its memory */
void urd_pool_welcome(struct urd_slot *slot);

/** urd_pool_ready - workers that serve: idle or busy */
u32 urd_pool_ready(const struct urd_pool *pool);

#endif /* URD_POOL_H */
