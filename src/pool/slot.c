// SPDX-License-Identifier: MIT
/*
 * The slot's machine at work: slot_step() looks up what an event does, stores
 * the new state and carries out the actions, one function or line each.  Events
 * come from slot_io.c and slot_msg.c (what the kernel and the worker did) and
 * from the pool (what it wants).
 */
#include "pool/slot.h"

#include <sched.h>
#include <stdio.h>

#include "pool/slot_priv.h"

#define WHY_TEXT(n, t) t,
static const char *const why_texts[] = { URD_WHYS(WHY_TEXT) };
#undef WHY_TEXT

const char *urd_why_text(enum urd_why why)
{
	return why < URD_WHY_NR ? why_texts[why] : "?";
}

struct urd_tags slot_tags(const struct urd_slot *slot)
{
	return (struct urd_tags){
		.pool = slot->pool->conf.name,
		.worker = slot->worker,
		.has_worker = true,
		.pid = slot->child.pid,
	};
}

void slot_because(struct urd_slot *slot, enum urd_why why)
{
	if (slot->why == URD_WHY_NONE)
		slot->why = (u8)why;
}

void urd_slot_init(struct urd_slot *slot, struct urd_pool *pool, u32 index, u32 worker, char *lines)
{
	memset(slot, 0, sizeof(*slot));
	slot->core = pool->core;
	slot->pool = pool;
	slot->index = index;
	slot->worker = worker;
	slot->state = SLOT_VACANT;
	slot->due_ns = URD_NEVER;
	slot->child = (struct urd_child){ 0, -1, -1, -1, -1, -1, -1, -1 };
	slot->timer.kind = URD_TIMER_SLOT;
	slot->out.buf = lines;
	slot->err.buf = lines + pool->core->line_max;
	slot->tail = lines + 2 * (size_t)pool->core->line_max;
	urd_list_init(&slot->jobs);
	urd_list_init(&slot->open);
	urd_list_init(&slot->hungry);
	for (u32 i = 0; i < SLOT_OP_NR; i++)
		urd_op_init(slot->core->ring, &slot->ops[i], URD_OP_SLOT, (u8)i);
	urd_inbox_init(&slot->task, &slot->core->arena, URD_DIALECT_FRAMED, pool->conf.response_max,
		       16384);
	urd_inbox_init(&slot->ctl, &slot->core->arena, URD_DIALECT_FRAMED, URD_CONTROL_MAX, 512);
	pool->states[SLOT_VACANT]++;
}

/* ---- the actions ---- */

static void act_spawn(struct urd_slot *slot)
{
	struct urd_spawn_ask ask = {
		.spec = &slot->pool->spec,
		.slot = slot->index,
		.worker = slot->worker,
	};
	int ret = urd_spawner_ask(slot->core->spawner, &ask);

	/* the pipe has room for more than there are slots */
	urd_assert(ret == 0);
	slot->unwanted = false;
	slot->why = URD_WHY_NONE;
	slot->asked = false;
	slot->exited = false;
	slot->broken = false;
	slot->served = 0;
	slot->given = 0;
	slot->given_soft = 0;
	slot->tail_len = 0;
	slot->rss_ready = 0;
	slot->can_cancel = false;
	slot->can_meta = false;
	slot->can_stream = false;
	slot->concurrency = 1;
	slot->exit_text[0] = 0;
	slot->pool->stats.spawns++;
}

static void act_disarm(struct urd_slot *slot)
{
	slot->due_ns = URD_NEVER;
	if (slot->state == SLOT_VACANT)
		urd_timer_clear(&slot->core->heap, &slot->timer);
	if (slot->state != SLOT_BUSY && slot->state != SLOT_IDLE)
		urd_op_cancel(slot->core->ring, &slot->ops[SLOT_OP_GUARD]);
}

static void act_deadline(struct urd_slot *slot, u32 acts)
{
	const struct urd_pool_conf *conf = &slot->pool->conf;
	u64 now = slot->core->now_ns;

	if (acts & SACT(ARM_BOOT)) {
		slot->due_ns = urd_ns_add(now, conf->boot_timeout_ns);
	} else if (acts & SACT(ARM_GRACE)) {
		if (slot->due_ns == URD_NEVER)
			slot->due_ns = urd_ns_add(now, conf->cancel_grace_ns);
	} else if (acts & SACT(ARM_STOP)) {
		slot->due_ns = urd_ns_add(now, conf->stop_timeout_ns / 2);
		slot_arm_guard(slot);
	} else if (acts & SACT(ARM_TERM)) {
		u64 wait = conf->stop_timeout_ns / 2;

		if (slot->why == URD_WHY_EXEC_TIMEOUT || slot->why == URD_WHY_CANCELLED)
			wait = urd_min(wait, (u64)SLOT_TERM_WAIT_NS);
		slot->due_ns = urd_ns_add(now, wait);
		slot_arm_guard(slot);
	} else if (acts & SACT(ARM_BACKOFF)) {
		slot->due_ns = urd_ns_add(now, urd_pool_failure(slot->pool));
		urd_timer_set(&slot->core->heap, &slot->timer, slot->due_ns);
	}
}

static void act_send_req(struct urd_slot *slot, struct urd_job *job)
{
	struct urd_core *core = slot->core;

	urd_assert(!job->slot && !job->answered);
	job->slot = slot;
	job->holds |= URD_HOLD_WORKER;
	job->attempt++;
	job->overdue = false;
	job->early = false;
	job->tell_cancel = false;
	if (!slot->can_stream)
		job->credit_due = 0;
	job->credit = job->stream && slot->can_stream ? URD_STREAM_CREDIT + job->credit_due : 0;
	job->gap_ns = core->now_ns;
	job->frame = NULL;
	job->sent = 0;
	job->msgid = ++core->msgid;
	job->exec_due_ns = urd_ns_add(core->now_ns, slot->pool->conf.exec_timeout_ns);
	job->exec_due_ns = urd_min(job->exec_due_ns, job->deadline_ns);
	if (!slot->jobs_nr)
		slot->beat_ns = core->now_ns;
	urd_list_push(&slot->jobs, &job->node);
	slot->jobs_nr++;
	urd_pool_begun(slot);
	slot_write_next(slot);
}

/* Did it end as it was meant to? The others are for an operator to see. */
static bool slot_ended_well(const struct urd_slot *slot)
{
	bool clean = !strcmp(slot->exit_text, "exit status 0");

	if (slot->why == URD_WHY_ASKED)
		return clean;
	if (slot->why <= URD_WHY_DRAIN || slot->why == URD_WHY_FORCED)
		return slot->asked;
	return clean && slot->why >= URD_WHY_MAX_JOBS && slot->why != URD_WHY_MEMORY_HARD;
}

static void act_reap(struct urd_slot *slot)
{
	struct urd_tags tags = slot_tags(slot);
	struct urd_job *job, *next;

	slot_lines_end(slot, &slot->out, "stdout");
	slot_lines_end(slot, &slot->err, "stderr");
	slot->pool->stats.exits++;
	if (!slot->served)
		snprintf(slot->pool->last_failure, sizeof(slot->pool->last_failure),
			 "worker %u: %s; reason: %s%s%.*s", slot->worker, slot->exit_text,
			 urd_why_text(slot->why), slot->tail_len ? "; stderr: " : "",
			 (int)urd_min(slot->tail_len, 128u),
			 slot->tail + slot->tail_len - urd_min(slot->tail_len, 128u));
	slot->pool->stats.exits_by[slot->why]++;
	if (slot_ended_well(slot))
		pr_info(slot->core->log, &tags, "worker ended: %s; reason: %s; served %llu",
			slot->exit_text, urd_why_text(slot->why), (unsigned long long)slot->served);
	else
		pr_warn(slot->core->log, &tags, "worker ended: %s; reason: %s; served %llu",
			slot->exit_text, urd_why_text(slot->why), (unsigned long long)slot->served);
	urd_timer_clear(&slot->core->heap, &slot->timer);
	urd_child_close(&slot->child);
	urd_inbox_reset(&slot->task);
	urd_inbox_reset(&slot->ctl);
	urd_list_del(&slot->hungry);
	urd_list_for_each_safe(job, next, &slot->jobs, node)
		if (job->answered)
			slot_forget(slot, job);
}

/* The answer is the caller's now, and so is the block that it is in. */
static void act_reply_ok(struct urd_slot *slot, const struct slot_what *what)
{
	struct urd_job *job = what->job;

	job->res = what->frame->buf;
	what->frame->buf.p = NULL;
	job->error = what->msg->error;
	job->result = what->msg->params;
	job->body = what->frame->p + (what->msg->error.p - what->frame->p);
	job->body_len = what->msg->error.len + what->msg->params.len;
	urd_job_answer(slot->core, job, what->msg->failed ? URD_APP : URD_OK);
	slot->served++;
	slot->pool->failures = 0;
}

static void act_reply_instead(struct urd_slot *slot, struct urd_job *job, enum urd_code code)
{
	if (code == URD_EXEC_TIMEOUT)
		urd_job_detail(slot->core, job, "worker %u, pid %d", slot->worker, slot->child.pid);
	urd_job_answer(slot->core, job, code);
	job->overdue = true;
	slot->overdue_nr++;
}

/* Whoever waits for this job is told that its worker is lost. */
static void reply_lost_one(struct urd_slot *slot, struct urd_job *job)
{
	enum urd_code code = slot->why == URD_WHY_PROTOCOL ? URD_PROTOCOL : URD_WORKER_DIED;

	if (!job->frame && job->attempt < SLOT_ATTEMPTS_MAX && job->owner) {
		slot_forget(slot, job);
		urd_pool_requeue(slot->pool, job);
		return;
	}
	urd_job_detail(slot->core, job, "worker %u: %s%s%s%s%.*s", slot->worker,
		       slot->exit_text[0] ? slot->exit_text : "still running",
		       slot->why ? "; reason: " : "", slot->why ? urd_why_text(slot->why) : "",
		       slot->tail_len ? "; stderr: " : "", (int)slot->tail_len, slot->tail);
	urd_job_answer(slot->core, job, code);
	if (!slot->child.pid || !job->frame) {
		slot_forget(slot, job);
		return;
	}
	/* its bytes may still be the kernel's: it stays until the process is gone */
	job->overdue = true;
	slot->overdue_nr++;
}

/*
 * Every caller who waits for this worker is told, or his request goes to
 * another one if this one has seen nothing of it.  From the newest to the
 * oldest, so that those which go back to the queue keep their order.
 */
static void act_reply_lost(struct urd_slot *slot)
{
	bool quiet = urd_op_is_idle(&slot->ops[SLOT_OP_TASK_WR]);
	struct urd_job *job, *prev;

	for (job = urd_list_last(&slot->jobs, struct urd_job, node); &job->node != &slot->jobs;
	     job = prev) {
		prev = urd_list_entry(job->node.prev, struct urd_job, node);
		if (job->answered)
			continue;
		if (quiet && !job->sent)
			job->frame = NULL; /* writing it began and failed at the first byte */
		reply_lost_one(slot, job);
	}
}

static void slot_act(struct urd_slot *slot, u32 acts, const struct slot_what *what)
{
	if (acts & SACT(SPAWN))
		act_spawn(slot);
	if (acts & SACT(DISARM))
		act_disarm(slot);
	if (!(acts & SACT(ARM_BACKOFF)))
		act_deadline(slot, acts);
	if (acts & SACT(SEND_REQ))
		act_send_req(slot, what->job);
	if (acts & SACT(SEND_CANCEL)) {
		what->job->tell_cancel = true;
		if (what->job == slot->writing) /* it must have gone out first */
			slot->core->behind = true;
		urd_slot_tell(slot);
	}
	if (acts & SACT(CLOSE_TASK))
		urd_child_end_input(&slot->child);
	if (acts & SACT(SIG_TERM))
		urd_child_signal(&slot->child, SIGTERM);
	/* once it is collected, its number may be another's */
	if ((acts & SACT(SIG_KILL)) && !slot->exited)
		urd_child_kill_all(&slot->child);
	if (acts & SACT(MARK_UNWANTED))
		slot->unwanted = true;
	if (acts & SACT(REAP))
		act_reap(slot);
	if (acts & SACT(ARM_BACKOFF)) /* the timer served another end until now */
		act_deadline(slot, acts);
	if (acts & SACT(REPLY_OK))
		act_reply_ok(slot, what);
	if (acts & SACT(COUNT_LATE))
		slot->pool->stats.late++;
	if (acts & SACT(REPLY_TIME))
		act_reply_instead(slot, what->job, URD_EXEC_TIMEOUT);
	if (acts & SACT(REPLY_CANCEL))
		act_reply_instead(slot, what->job, URD_CANCELLED);
	if (acts & SACT(REPLY_LOST))
		act_reply_lost(slot);
	if (acts & SACT(BOOTED)) {
		urd_pool_booted(slot->pool);
		urd_pool_welcome(slot);
	}
}

/* What each state promises about the slot, in production too. */
static void slot_check(const struct urd_slot *slot)
{
	bool alive = slot->state >= SLOT_BOOTING && slot->state <= SLOT_KILLING;

	urd_assert(alive == (slot->child.pid != 0));
	urd_assert(slot->jobs_nr >= slot->overdue_nr);
	if (slot->state < SLOT_BUSY || slot->state == SLOT_BACKOFF)
		urd_assert(slot->jobs_nr == 0);
	if (slot->state == SLOT_BUSY)
		urd_assert(slot->overdue_nr == 0);
}

void slot_step(struct urd_slot *slot, enum urd_slot_event event, const struct slot_what *what)
{
	struct urd_slot_row row = urd_slot_fsm(slot->state, event);
	struct urd_tags tags = slot_tags(slot);

	pr_debug(slot->core->log, &tags, "%s: %s -> %s", urd_slot_event_name(event),
		 urd_slot_state_name(slot->state), urd_slot_state_name(row.next));
	urd_assert(row.used);
	slot->pool->states[slot->state]--;
	slot->pool->states[row.next]++;
	slot->state = row.next;
	if (slot->leave && (row.next < SLOT_IDLE || row.next > SLOT_GRACE))
		urd_pool_left(slot);
	slot_act(slot, row.acts, what);
	slot_relist(slot);
	slot_arm_task(slot);
	slot_check(slot);
	if (row.acts & SACT(VACATED))
		urd_pool_fill(slot->pool);
}

void slot_relist(struct urd_slot *slot)
{
	bool listed = !urd_list_empty(&slot->open);
	bool room = urd_slot_room(slot) > 0;

	if (room && !listed)
		urd_list_push_front(&slot->pool->open, &slot->open);
	else if (!room && listed)
		urd_list_del(&slot->open);
}

void slot_forget(struct urd_slot *slot, struct urd_job *job)
{
	urd_assert(job->slot == slot && slot->jobs_nr > 0);
	if (job->overdue) {
		urd_assert(slot->overdue_nr > 0);
		slot->overdue_nr--;
	}
	job->overdue = false;
	job->slot = NULL;
	if (slot->writing == job)
		slot->writing = NULL;
	urd_list_del(&job->node);
	slot->jobs_nr--;
	slot_relist(slot); /* of a concurrent worker that was full, nothing else may tell */
	urd_job_release(slot->core, job, URD_HOLD_WORKER);
}

void slot_settled(struct urd_slot *slot)
{
	if (slot->state < SLOT_BUSY || slot->state > SLOT_RETIRING)
		return;
	if (!slot->jobs_nr) {
		slot->idle_ns = slot->core->now_ns;
		slot_step(slot, SEV_EMPTIED, NULL);
		if (slot->state == SLOT_IDLE && urd_op_is_idle(&slot->ops[SLOT_OP_TASK_RD]))
			urd_inbox_trim(&slot->task);
	} else if (!slot->overdue_nr && slot->due_ns != URD_NEVER) {
		slot_step(slot, SEV_CLEARED, NULL);
	}
}

/* ---- what the pool asks for ---- */

u32 urd_slot_room(const struct urd_slot *slot)
{
	if (slot->broken || (slot->state != SLOT_IDLE && slot->state != SLOT_BUSY))
		return 0;
	if (slot->jobs_nr >= slot->concurrency)
		return 0;
	return slot->concurrency - slot->jobs_nr;
}

void urd_slot_start(struct urd_slot *slot)
{
	slot_step(slot, SEV_START, NULL);
}

void urd_slot_dispatch(struct urd_slot *slot, struct urd_job *job)
{
	struct slot_what what = { .job = job };

	urd_assert(urd_slot_room(slot) > 0);
	slot_step(slot, SEV_DISPATCH, &what);
}

void urd_slot_retire(struct urd_slot *slot, enum urd_why why)
{
	if (slot->state == SLOT_VACANT || slot->state == SLOT_BACKOFF)
		why = URD_WHY_NONE;
	slot_because(slot, why);
	slot->asked |= why != URD_WHY_ASKED;
	slot_step(slot, SEV_RETIRE, NULL);
}

void urd_slot_kill(struct urd_slot *slot, enum urd_why why)
{
	slot_because(slot, why);
	slot->asked = true;
	slot_step(slot, SEV_KILL, NULL);
}

void urd_slot_cancel(struct urd_slot *slot, struct urd_job *job, enum urd_gone gone)
{
	struct slot_what what = { .job = job };

	urd_assert(job->slot == slot && !job->answered);
	if (!job->frame) {
		/* the worker has not heard of it */
		urd_job_answer(slot->core, job, URD_CANCELLED);
		slot_forget(slot, job);
		slot_settled(slot);
		return;
	}
	if (gone == URD_GONE_IGNORE)
		return;
	slot->asked = true;
	if (slot->can_cancel) {
		slot_step(slot, SEV_CANCEL, &what);
	} else if (gone == URD_GONE_KILL) {
		slot_because(slot, URD_WHY_CANCELLED);
		slot_step(slot, SEV_CANCEL_HARD, &what);
	}
}

void urd_slot_spawned(struct urd_slot *slot, const struct urd_spawned *res)
{
	struct urd_tags tags = slot_tags(slot);

	if (res->err) {
		pr_err(slot->core->log, &tags, "can't start a worker: %s%s%s: %s (%s)", res->step,
		       res->detail[0] ? " " : "", res->detail, strerror(-res->err),
		       slot->pool->conf.argv[0]);
		snprintf(slot->pool->last_failure, sizeof(slot->pool->last_failure), "%s: %s (%s)",
			 res->step, strerror(-res->err), slot->pool->conf.argv[0]);
		slot_step(slot, slot->unwanted ? SEV_SPAWN_FAIL_UNWANTED : SEV_SPAWN_FAIL, NULL);
		return;
	}
	slot->child = res->child;
	slot->born_ns = slot->core->now_ns;
	slot_step(slot, slot->unwanted ? SEV_SPAWNED_UNWANTED : SEV_SPAWNED, NULL);
	slot_open(slot);
}

void urd_slot_timer(struct urd_slot *slot)
{
	if (slot->state != SLOT_BACKOFF) {
		urd_pool_aged(slot);
		return;
	}
	slot->due_ns = URD_NEVER;
	slot_step(slot, SEV_DUE, NULL);
}
