// SPDX-License-Identifier: MIT
/*
 * Jobs: taken, answered exactly once, and free again when neither the caller nor
 * a worker holds them.
 */
#include <stdarg.h>
#include <stdio.h>

#include "pool/pool.h"
#include "pool/slot.h"

/* Longest text about a failure that a caller is told, in bytes. */
#define DETAIL_MAX 4096
/* Chunks of one stream that may be on their way; more would be no window any more. */
#define STREAM_CREDIT_MAX 1024u

struct urd_job *urd_job_get(struct urd_core *core)
{
	struct urd_list *n = urd_list_pop(&core->jobs_free);
	struct urd_job *job;

	if (!n)
		return NULL;
	job = urd_list_entry(n, struct urd_job, node);
	urd_assert(!job->holds && !job->slot);
	memset(job, 0, offsetof(struct urd_job, trace));
	urd_list_init(&job->node);
	urd_list_init(&job->caller);
	urd_list_init(&job->done);
	job->due.kind = URD_TIMER_JOB;
	job->holds = URD_HOLD_CALLER;
	job->deadline_ns = URD_NEVER;
	job->arrived_ns = core->now_ns;
	job->trace[0] = 0;
	job->frame = NULL;
	job->sent = 0;
	job->meta_len = 0;
	memset(&job->res, 0, offsetof(struct urd_job, spare) - offsetof(struct urd_job, res));
	urd_list_init(&job->item.node);
	core->jobs_out++;
	return job;
}

void urd_job_release(struct urd_core *core, struct urd_job *job, u8 hold)
{
	urd_assert(job->holds & hold);
	job->holds &= (u8)~hold;
	if (job->holds)
		return;
	urd_assert(urd_list_empty(&job->node) && urd_list_empty(&job->caller));
	urd_assert(urd_list_empty(&job->item.node));
	urd_assert(urd_list_empty(&job->done) && !urd_timer_is_set(&job->due));
	urd_assert(!job->slot);
	urd_arena_put(&core->arena, &job->req);
	urd_arena_put(&core->arena, &job->res);
	urd_assert(core->jobs_out > 0);
	core->jobs_out--;
	/* the one just used is the next one taken: it is in the cache */
	urd_list_push_front(&core->jobs_free, &job->node);
}

struct urd_chunk *urd_chunk_get(struct urd_core *core, struct urd_job *job,
				enum urd_chunk_kind kind)
{
	struct urd_list *n = urd_list_pop(&core->chunks_free);
	struct urd_chunk *chunk;

	if (!n)
		return NULL;
	chunk = urd_list_entry(n, struct urd_chunk, node);
	urd_list_init(&chunk->item.node);
	chunk->item.is_chunk = true;
	chunk->job = job;
	chunk->kind = kind;
	chunk->buf = (struct urd_buf){ 0 };
	urd_list_push(&core->chunks, &chunk->node);
	return chunk;
}

void urd_chunk_put(struct urd_core *core, struct urd_chunk *chunk)
{
	urd_assert(urd_list_empty(&chunk->item.node));
	urd_list_del(&chunk->node);
	urd_arena_put(&core->arena, &chunk->buf);
	urd_list_push_front(&core->chunks_free, &chunk->node);
}

void urd_job_grant(struct urd_job *job, u32 n)
{
	/* before a worker has it, what is due comes on top of what it begins with */
	u32 has = job->slot ? job->credit : URD_STREAM_CREDIT + job->credit_due;
	struct urd_core *core;

	if (job->answered || !job->stream || !job->pool || has >= STREAM_CREDIT_MAX)
		return;
	if (job->slot && !job->slot->can_stream)
		return;
	n = urd_min(n, STREAM_CREDIT_MAX - has);
	job->credit_due += n;
	if (!job->slot)
		return;
	core = job->pool->core;
	job->credit += n;
	job->gap_ns = core->now_ns;
	if (job == job->slot->writing) /* it must have gone out first */
		core->behind = true;
	urd_slot_tell(job->slot);
}

void urd_job_regrant(struct urd_job *job)
{
	if (job->credit <= URD_STREAM_CREDIT / 2)
		urd_job_grant(job, URD_STREAM_CREDIT - job->credit);
}

/* By how an outcome usually comes about. */
#define CODE_EXECUTED(n, v, e, t) [v] = URD_EXECUTED_##e,
static const u8 code_executed[] = { URD_ERRORS(CODE_EXECUTED) };
#undef CODE_EXECUTED

void urd_job_answer(struct urd_core *core, struct urd_job *job, enum urd_code code)
{
	urd_assert(!job->answered);
	urd_assert(code < URD_CODE_NR);
	urd_assert(!urd_timer_is_set(&job->due));
	job->answered = true;
	job->code = code;
	job->executed = code_executed[code];
	if (job->executed == URD_EXECUTED_MAYBE && !job->frame)
		job->executed = URD_EXECUTED_NO; /* no byte of it was sent */
	if (job->pool)
		job->pool->stats.outcomes[code]++;
	urd_list_push(&core->done, &job->done);
}

void urd_job_detail(struct urd_core *core, struct urd_job *job, const char *fmt, ...)
{
	va_list ap;

	urd_assert(!job->answered && !job->res.p);
	if (urd_arena_get(&core->arena, DETAIL_MAX, &job->res))
		return;
	va_start(ap, fmt);
	vsnprintf((char *)job->res.p, DETAIL_MAX, fmt, ap);
	va_end(ap);
	job->detail = (const char *)job->res.p;
}

void urd_job_cancel(struct urd_core *core, struct urd_job *job)
{
	if (job->answered)
		return;
	if (job->slot) {
		urd_slot_cancel(job->slot, job,
				urd_max((int)job->pool->conf.gone, (int)URD_GONE_NOTIFY));
	} else if (job->pool) {
		urd_pool_withdraw(job->pool, job);
		urd_job_answer(core, job, URD_CANCELLED);
	}
}

void urd_job_drop(struct urd_core *core, struct urd_job *job)
{
	job->owner = NULL;
	urd_list_del(&job->caller);
	if (job->answered)
		return; /* released when it is passed on, to nobody */
	if (job->slot) {
		urd_slot_cancel(job->slot, job, job->pool->conf.gone);
		urd_job_regrant(job); /* if it goes on, nobody else does */
	} else {
		urd_pool_withdraw(job->pool, job);
		urd_job_answer(core, job, URD_CANCELLED);
	}
}
