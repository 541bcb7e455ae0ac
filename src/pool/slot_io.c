// SPDX-License-Identifier: MIT
/*
 * A slot's operations: arming them, and making events of their completions.
 * The process is watched through its pidfd at all times; the end of a stream is
 * only the other half of that news.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>

#include "pool/slot_priv.h"

static struct urd_op *slot_op(struct urd_slot *slot, enum urd_slot_op op)
{
	return &slot->ops[op];
}

static bool slot_op_idle(const struct urd_slot *slot, enum urd_slot_op op)
{
	return urd_op_is_idle(&slot->ops[op]);
}

/* ---- arming ---- */

/* When a busy worker must have given a sign of life. */
static u64 slot_beat_due(const struct urd_slot *slot)
{
	if (!slot->jobs_nr || slot->state > SLOT_RETIRING)
		return URD_NEVER;
	return urd_ns_add(slot->beat_ns, slot->pool->conf.heartbeat_timeout_ns);
}

/*
 * When a request is overdue. A stream also when its next chunk does not come,
 * but only if the worker may send one: else it is the caller who is slow.
 */
static u64 slot_job_due(const struct urd_slot *slot, const struct urd_job *job)
{
	u64 gap = slot->pool->conf.stream_gap_ns;

	if (!job->credit)
		return job->exec_due_ns;
	return urd_min(job->exec_due_ns, urd_ns_add(job->gap_ns, gap));
}

/* The earliest of the deadlines that the task read guards. */
static u64 slot_task_due(const struct urd_slot *slot)
{
	u64 due = slot->state == SLOT_GRACE || slot->state == SLOT_RETIRING ? slot->due_ns :
									      URD_NEVER;
	const struct urd_job *job;

	urd_list_for_each(job, &slot->jobs, node)
		if (!job->overdue)
			due = urd_min(due, slot_job_due(slot, job));
	return urd_min(due, slot_beat_due(slot));
}

void slot_starve(struct urd_slot *slot)
{
	u64 due = slot->state == SLOT_BOOTING ? slot->due_ns : slot_task_due(slot);

	if (urd_list_empty(&slot->hungry))
		urd_list_push(&slot->core->starved, &slot->hungry);
	/* no read is armed that could carry the deadline */
	if (due < (urd_timer_is_set(&slot->timer) ? slot->timer.due_ns : URD_NEVER))
		urd_timer_set(&slot->core->heap, &slot->timer, due);
}

void slot_arm_task(struct urd_slot *slot)
{
	u8 *p;
	u32 len;
	u64 due;

	if (slot->state < SLOT_BUSY || slot->state > SLOT_TERMING || slot->broken || slot->parsing)
		return;
	if (!urd_list_empty(&slot->hungry))
		return; /* a frame is there, and only memory for it is not */
	due = slot_task_due(slot);
	if (!slot_op_idle(slot, SLOT_OP_TASK_RD)) {
		if (due < slot->read_due_ns) /* comes back cancelled, and is armed anew */
			urd_op_cancel(slot->core->ring, slot_op(slot, SLOT_OP_TASK_RD));
		return;
	}
	if (urd_inbox_space(&slot->task, &p, &len)) {
		slot_starve(slot);
		return;
	}
	slot->read_due_ns = due;
	urd_op_read(slot->core->ring, slot_op(slot, SLOT_OP_TASK_RD), slot->child.task_rd, p, len,
		    due);
}

void slot_arm_control(struct urd_slot *slot)
{
	u8 *p;
	u32 len;

	if (slot->exited || slot->child.ctl_rd < 0 || !slot_op_idle(slot, SLOT_OP_CTL_RD) ||
	    !urd_list_empty(&slot->hungry))
		return;
	if (urd_inbox_space(&slot->ctl, &p, &len)) {
		slot_starve(slot);
		return;
	}
	urd_op_read(slot->core->ring, slot_op(slot, SLOT_OP_CTL_RD), slot->child.ctl_rd, p, len,
		    slot->state == SLOT_BOOTING ? slot->due_ns : URD_NEVER);
}

static void slot_arm_lines(struct urd_slot *slot, enum urd_slot_op op)
{
	struct urd_lines *l = op == SLOT_OP_OUT ? &slot->out : &slot->err;
	int fd = op == SLOT_OP_OUT ? slot->child.out_rd : slot->child.err_rd;

	if (!slot->exited && slot_op_idle(slot, op))
		urd_op_read(slot->core->ring, slot_op(slot, op), fd, l->buf + l->len,
			    slot->core->line_max - l->len, URD_NEVER);
}

void slot_arm_guard(struct urd_slot *slot)
{
	u64 due = slot->due_ns;

	if (slot->exited)
		return;
	if (!slot_op_idle(slot, SLOT_OP_GUARD)) {
		urd_op_cancel(slot->core->ring, slot_op(slot, SLOT_OP_GUARD));
		return;
	}
	if (slot->state < SLOT_STOPPING)
		due = slot->core->now_ns + SLOT_EOF_WAIT_NS;
	urd_op_poll(slot->core->ring, slot_op(slot, SLOT_OP_GUARD), slot->child.pidfd, POLLIN, due);
}

void slot_open(struct urd_slot *slot)
{
	urd_op_poll(slot->core->ring, slot_op(slot, SLOT_OP_EXIT), slot->child.pidfd, POLLIN,
		    URD_NEVER);
	slot_arm_control(slot);
	slot_arm_lines(slot, SLOT_OP_OUT);
	slot_arm_lines(slot, SLOT_OP_ERR);
}

void slot_close_streams(struct urd_slot *slot)
{
	for (u32 i = 0; i < SLOT_OP_NR; i++)
		urd_op_cancel(slot->core->ring, slot_op(slot, i));
}

void slot_write_next(struct urd_slot *slot)
{
	struct urd_job *job;

	if (slot->broken)
		return;
	if (slot->writing) {
		slot->core->behind = true;
		return;
	}
	urd_list_for_each(job, &slot->jobs, node)
		if (!job->frame && job->exec_due_ns > slot->core->now_ns)
			break; /* one that is overdue is answered when the read's time is up */
	if (&job->node == &slot->jobs)
		return;
	slot->writing = job;
	slot_begin(slot, job);
	slot->iov[0] = (struct iovec){ job->frame, job->frame_len };
	slot->iov[1] = (struct iovec){ job->meta, job->meta_len };
	urd_op_write(slot->core->ring, slot_op(slot, SLOT_OP_TASK_WR), slot->child.task_wr,
		     slot->child.task_wr == slot->child.task_rd, slot->iov, job->meta_len ? 2 : 1,
		     false, URD_NEVER);
	if (job != urd_list_last(&slot->jobs, struct urd_job, node))
		slot->core->behind = true;
}

void urd_slot_tell(struct urd_slot *slot)
{
	u32 len;

	if (slot->broken)
		return;
	if (!slot_op_idle(slot, SLOT_OP_CTL_WR)) {
		slot->core->behind = true; /* later: when what is being written has gone out */
		return;
	}
	len = slot_pack_control(slot);
	if (!len)
		return;
	slot->iov_ctl = (struct iovec){ slot->ctl_buf, len };
	urd_op_write(slot->core->ring, slot_op(slot, SLOT_OP_CTL_WR), slot->child.ctl_wr,
		     slot->child.ctl_wr == slot->child.ctl_rd, &slot->iov_ctl, 1, false, URD_NEVER);
}

static void slot_told(struct urd_slot *slot, s32 res)
{
	u32 len = (u32)slot->iov_ctl.iov_len;

	if (res <= 0 || slot->broken)
		return; /* the grace deadline, or the end of another stream, takes care */
	if ((u32)res < len) {
		slot->iov_ctl.iov_base = (u8 *)slot->iov_ctl.iov_base + res;
		slot->iov_ctl.iov_len = len - (u32)res;
		urd_op_write(slot->core->ring, slot_op(slot, SLOT_OP_CTL_WR), slot->child.ctl_wr,
			     slot->child.ctl_wr == slot->child.ctl_rd, &slot->iov_ctl, 1, true,
			     URD_NEVER);
		return;
	}
	urd_slot_tell(slot);
}

/* ---- what happened ---- */

/* A stream of a living process ended: its exit most likely follows. */
static void slot_stream_ended(struct urd_slot *slot)
{
	if (slot->exited || slot->broken)
		return;
	slot->broken = true;
	slot_relist(slot);
	if (slot->state < SLOT_STOPPING)
		slot_arm_guard(slot);
}

/* Requests whose time is up, or whose worker has answered and does not read on. */
static void slot_check_jobs(struct urd_slot *slot)
{
	u64 now = slot->core->now_ns;
	struct urd_job *job, *next;

	urd_list_for_each_safe(job, next, &slot->jobs, node) {
		struct slot_what what = { .job = job };

		if (slot->state < SLOT_BUSY || slot->state > SLOT_RETIRING)
			return;
		if (job->overdue || slot_job_due(slot, job) > now)
			continue;
		if (!job->frame) {
			/* the worker has not heard of it, and will not */
			urd_job_answer(slot->core, job, URD_EXEC_TIMEOUT);
			slot_forget(slot, job);
			continue;
		}
		if (job->early) {
			slot_bad(slot, "it answered a request and does not read the rest of it");
			return;
		}
		slot->asked = true;
		if (slot->state != SLOT_RETIRING && slot->can_cancel) {
			slot_step(slot, SEV_EXEC_DUE, &what);
		} else {
			slot_because(slot, URD_WHY_EXEC_TIMEOUT);
			slot_step(slot, SEV_EXEC_DUE_HARD, &what);
		}
	}
}

static void slot_check_due(struct urd_slot *slot)
{
	slot_check_jobs(slot);
	if (slot_beat_due(slot) <= slot->core->now_ns) {
		urd_slot_kill(slot, URD_WHY_HEARTBEAT);
		return;
	}
	if (slot->due_ns > slot->core->now_ns)
		return;
	if (slot->state == SLOT_BOOTING)
		slot_because(slot, URD_WHY_BOOT_TIMEOUT);
	else if (slot->state == SLOT_GRACE || slot->state == SLOT_RETIRING)
		slot_because(slot, URD_WHY_EXEC_TIMEOUT);
	else if (slot->state != SLOT_STOPPING && slot->state != SLOT_TERMING)
		return;
	slot->due_ns = URD_NEVER;
	slot_step(slot, SEV_DUE, NULL);
}

static void slot_task_read(struct urd_slot *slot, s32 res)
{
	bool due = res == -ETIME;

	if (due && !slot->exited) {
		/*
		 * The deadline has passed, perhaps because all of us stood still
		 * for a while.  An answer that lies there is an answer in time.
		 */
		u8 *p;
		u32 len;

		if (!urd_inbox_space(&slot->task, &p, &len))
			res = urd_ring_read_now(slot->core->ring, slot->child.task_rd, p, len);
	}
	if (res > 0) {
		urd_inbox_commit(&slot->task, (u32)res);
		slot_task_frames(slot);
	} else if (res != -ECANCELED && res != -ETIME && !urd_res_is_again(res)) {
		slot_stream_ended(slot);
	}
	if (due)
		slot_check_due(slot);
	slot_arm_task(slot);
}

static void slot_control_read(struct urd_slot *slot, s32 res)
{
	if (res > 0) {
		urd_inbox_commit(&slot->ctl, (u32)res);
		slot_control_frames(slot);
	} else if (res != -ECANCELED && res != -ETIME && !urd_res_is_again(res)) {
		slot_stream_ended(slot);
		return;
	}
	if (slot->state == SLOT_BOOTING)
		slot_check_due(slot);
	if (slot->state != SLOT_KILLING)
		slot_arm_control(slot);
}

static void slot_task_written(struct urd_slot *slot, s32 res)
{
	struct urd_job *job = slot->writing;
	u32 total, off;

	urd_assert(job != NULL);
	if (res > 0)
		job->sent += (u32)res;
	total = job->frame_len + job->meta_len;
	if (job->sent < total) {
		if (res <= 0)
			slot_stream_ended(slot);
		if (res <= 0 || slot->broken)
			return; /* slot->writing stays: the frame is torn */
		off = urd_min(job->sent, job->frame_len);
		slot->iov[0] = (struct iovec){ job->frame + off, job->frame_len - off };
		slot->iov[1] = (struct iovec){ job->meta + (job->sent - off),
					       job->meta_len - (job->sent - off) };
		urd_op_write(slot->core->ring, slot_op(slot, SLOT_OP_TASK_WR), slot->child.task_wr,
			     slot->child.task_wr == slot->child.task_rd,
			     slot->iov[0].iov_len ? slot->iov : slot->iov + 1,
			     slot->iov[0].iov_len && slot->iov[1].iov_len ? 2 : 1, true, URD_NEVER);
		return;
	}
	slot->writing = NULL;
	if (job->early) {
		slot_forget(slot, job);
		slot_settled(slot);
	}
	slot_write_next(slot);
	urd_slot_tell(slot); /* a cancel waits until the request is there wholly */
}

static void slot_output(struct urd_slot *slot, enum urd_slot_op op, s32 res)
{
	if (res <= 0 && !urd_res_is_again(res))
		return; /* it closed its output, which is its right */
	if (res > 0)
		slot_lines(slot, op == SLOT_OP_OUT ? &slot->out : &slot->err, (u32)res,
			   op == SLOT_OP_OUT ? "stdout" : "stderr");
	slot_arm_lines(slot, op);
}

static void slot_guard(struct urd_slot *slot, s32 res)
{
	if (slot->exited || res >= 0)
		return; /* the other poll tells of the exit */
	if (slot->state >= SLOT_STOPPING && slot->state <= SLOT_TERMING) {
		if (slot->due_ns <= slot->core->now_ns)
			slot_check_due(slot);
		else if (slot_op_idle(slot, SLOT_OP_GUARD))
			slot_arm_guard(slot); /* was cancelled for a new deadline */
	} else if (slot->broken && slot->state != SLOT_KILLING && res == -ETIME) {
		slot_because(slot, URD_WHY_STREAM_END);
		slot_step(slot, SEV_IO_FAIL, NULL);
	}
}

static void slot_describe_exit(struct urd_slot *slot, const siginfo_t *si)
{
	if (si->si_code == CLD_EXITED)
		snprintf(slot->exit_text, sizeof(slot->exit_text), "exit status %d", si->si_status);
	else
		snprintf(slot->exit_text, sizeof(slot->exit_text), "killed by signal %d (%s)%s",
			 si->si_status, strsignal(si->si_status),
			 si->si_code == CLD_DUMPED ? ", core dumped" : "");
}

static void slot_exited(struct urd_slot *slot)
{
	siginfo_t si;
	int ret;

	/* its children first: once it is collected, the group's number may be another's */
	urd_child_kill_all(&slot->child);
	ret = urd_child_reap(&slot->child, &si);
	/* a debugger, or a sanitizer at its last look, may hold on to what is dead */
	if (ret)
		snprintf(slot->exit_text, sizeof(slot->exit_text), "%s",
			 ret == -EAGAIN ? "gone, and held by its tracer" : "gone");
	else
		slot_describe_exit(slot, &si);
	slot->exited = true;
	slot->broken = true;
	slot_relist(slot);
	slot_close_streams(slot);
}

/* ---- the end ---- */

/* Bytes of an ended process, at most so many reads: an heir may still write. */
#define LAST_READS 4096

static void slot_last_task(struct urd_slot *slot)
{
	for (u32 i = 0; i < LAST_READS; i++) {
		u8 *p;
		u32 len;
		s32 n;

		if (slot->state < SLOT_BUSY || slot->state > SLOT_TERMING ||
		    urd_inbox_space(&slot->task, &p, &len))
			return;
		n = urd_ring_read_now(slot->core->ring, slot->child.task_rd, p, len);
		if (n <= 0)
			return;
		urd_inbox_commit(&slot->task, (u32)n);
		slot_task_frames(slot);
	}
}

static void slot_last_lines(struct urd_slot *slot, enum urd_slot_op op)
{
	struct urd_lines *l = op == SLOT_OP_OUT ? &slot->out : &slot->err;
	int fd = op == SLOT_OP_OUT ? slot->child.out_rd : slot->child.err_rd;

	for (u32 i = 0; i < LAST_READS; i++) {
		s32 n = urd_ring_read_now(slot->core->ring, fd, l->buf + l->len,
					  slot->core->line_max - l->len);

		if (n <= 0)
			return;
		slot_lines(slot, l, (u32)n, op == SLOT_OP_OUT ? "stdout" : "stderr");
	}
}

/* The exit was seen, and nothing of the slot is in flight: read what is left, and part. */
static void slot_try_gone(struct urd_slot *slot)
{
	bool early;

	if (!slot->exited || !slot->child.pid)
		return;
	for (u32 i = 0; i < SLOT_OP_NR; i++)
		if (!slot_op_idle(slot, i))
			return;
	slot_last_lines(slot, SLOT_OP_OUT);
	slot_last_lines(slot, SLOT_OP_ERR);
	slot_last_task(slot);
	slot->due_ns = slot->state == SLOT_BACKOFF ? slot->due_ns : URD_NEVER;
	early = slot->state == SLOT_BOOTING || (!slot->served && !slot->asked);
	if (slot->state == SLOT_BOOTING)
		slot_because(slot, URD_WHY_BOOT_FAILED);
	slot_step(slot, early ? SEV_GONE_EARLY : SEV_GONE, NULL);
}

void urd_slot_complete(struct urd_slot *slot, const struct urd_done *done)
{
	switch ((enum urd_slot_op)done->op->sub) {
	case SLOT_OP_TASK_RD:
		slot_task_read(slot, done->res);
		break;
	case SLOT_OP_TASK_WR:
		slot_task_written(slot, done->res);
		break;
	case SLOT_OP_CTL_RD:
		slot_control_read(slot, done->res);
		break;
	case SLOT_OP_CTL_WR:
		slot_told(slot, done->res);
		break;
	case SLOT_OP_OUT:
	case SLOT_OP_ERR:
		slot_output(slot, done->op->sub, done->res);
		break;
	case SLOT_OP_EXIT:
		slot_exited(slot);
		break;
	case SLOT_OP_GUARD:
		slot_guard(slot, done->res);
		break;
	case SLOT_OP_NR:
		urd_assert(false);
	}
	slot_try_gone(slot);
}

void urd_slot_feed(struct urd_slot *slot)
{
	if (!slot->child.pid || slot->state == SLOT_KILLING)
		return;
	if (slot_op_idle(slot, SLOT_OP_TASK_RD)) {
		slot_task_frames(slot);
		slot_arm_task(slot);
	}
	if (slot_op_idle(slot, SLOT_OP_CTL_RD) && slot->state != SLOT_KILLING) {
		slot_control_frames(slot);
		slot_arm_control(slot);
	}
	if (!urd_list_empty(&slot->hungry))
		slot_check_due(slot);
}
