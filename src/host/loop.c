// SPDX-License-Identifier: MIT
/*
 * The main loop.  A turn: submit and wait, hand each completion to whoever owns
 * its op, run what is due, pass answers on, and leave what is to be written for
 * the next submit.  Nothing calls back into the loop.
 */
#include <poll.h>
#include <stdio.h>

#include "host/host.h"

/* Completions per turn: others are not kept waiting longer than these take. */
#define TURN_MAX 256

static void loop_complete(struct urd *urd, const struct urd_done *done)
{
	struct urd_watch *w;

	urd_done_begin(done);
	if (urd_core_complete(&urd->core, done) || urd_front_complete(&urd->front, done))
		return;
	if (done->op->kind == URD_OP_DOORBELL) {
		host_doorbell(urd);
		return;
	}
	urd_assert(done->op->kind == URD_OP_SIGNAL);
	w = container_of(done->op, struct urd_watch, op);
	if (done->op->cancelling)
		return;
	urd_op_poll(urd->core.ring, &w->op, w->fd, POLLIN, URD_NEVER);
	w->fn(w->fd, w->arg);
}

static void loop_timers(struct urd *urd)
{
	struct urd_timer *t;

	while ((t = urd_heap_pop(&urd->core.heap, urd->core.now_ns))) {
		if (urd_core_timer(&urd->core, t) || urd_front_timer(&urd->front, t))
			continue;
		urd_assert(t == &urd->drain_timer);
		pr_warn(urd->log, NULL, "drain: time is up, cutting what still runs");
		urd_core_cut(&urd->core);
	}
}

/* Whoever gets an answer may hand in more, which may have its answer at once. */
static void loop_pass_on(struct urd *urd)
{
	struct urd_list *n;

	/* chunks first: they were there before the end of their stream */
	while (!urd_list_empty(&urd->core.chunks)) {
		struct urd_chunk *chunk = urd_list_first(&urd->core.chunks, struct urd_chunk, node);

		if (chunk->job->origin == URD_ORIGIN_CONN)
			urd_front_chunk(&urd->front, chunk);
		else
			host_chunk(urd, chunk);
	}
	while ((n = urd_list_pop(&urd->core.done))) {
		struct urd_job *job = urd_list_entry(n, struct urd_job, done);

		if (job->origin == URD_ORIGIN_CONN)
			urd_front_answer(&urd->front, job);
		else
			host_answer(urd, job);
	}
}

/* Draining: first the workers, then the answers that clients have not read yet. */
static void loop_drain(struct urd *urd)
{
	struct urd_core *core = &urd->core;
	bool cut = core->now_ns >= urd->drain_due_ns;

	if (!urd_core_drain(core))
		return;
	urd_timer_clear(&core->heap, &urd->drain_timer);
	urd_front_close(&urd->front, cut);
	if (!urd_front_is_quiet(&urd->front) || !urd_list_empty(&core->done))
		return;
	for (u32 i = 0; i < urd->watch_nr; i++) {
		urd_op_cancel(core->ring, &urd->watch[i].op);
		if (!urd_op_is_idle(&urd->watch[i].op))
			return;
	}
	urd->drained = true;
}

static void loop_publish(struct urd *urd)
{
	for (u32 i = 0; i < urd->core.pools_nr; i++)
		atomic_store_explicit(&urd->ready[i], urd_pool_ready(&urd->core.pools[i]),
				      memory_order_relaxed);
}

bool host_turn(struct urd *urd, u64 until_ns)
{
	struct urd_core *core = &urd->core;
	struct urd_done done[TURN_MAX];
	u32 n;

	/* a write that goes out at once wakes nobody: whoever waits for its end asks */
	if ((urd->draining || core->behind) && urd_ring_is_pending(core->ring))
		until_ns = 0;
	core->behind = false;
	n = urd_ring_turn(core->ring, urd_min(until_ns, urd_heap_next(&core->heap)), done,
			  TURN_MAX);
	core->now_ns = urd_ring_now(core->ring);
	for (u32 i = 0; i < n; i++)
		loop_complete(urd, &done[i]);
	loop_timers(urd);
	urd_core_settle(core);
	urd_front_settle(&urd->front);
	do {
		loop_pass_on(urd);
		urd_core_settle(core);
	} while (!urd_list_empty(&core->done));
	urd_front_flush(&urd->front);
	loop_publish(urd);
	if (urd->draining)
		loop_drain(urd);
	return !urd->drained;
}

void host_drain(struct urd *urd, u64 timeout_ns)
{
	struct urd_core *core = &urd->core;
	u64 due = urd_ns_add(core->now_ns, timeout_ns);

	if (!urd->draining) {
		urd->draining = true;
		urd->drain_due_ns = due;
		core->draining = true;
		urd_front_stop(&urd->front);
		pr_info(urd->log, NULL, "draining: nothing new is accepted");
	}
	urd->drain_due_ns = urd_min(urd->drain_due_ns, due);
	urd_timer_set(&core->heap, &urd->drain_timer, urd->drain_due_ns);
}
