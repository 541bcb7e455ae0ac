// SPDX-License-Identifier: MIT
/*
 * What must hold at all times.  Some of it is seen from outside by the models,
 * the rest here: by looking over the shoulder of a few calls (the linker puts
 * the __wrap_ functions before the real ones) and at urd's books after each turn.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim.h"

/* How much later than due something may happen: the loop is busy, ends of streams wait. */
#define SLACK_NS (400 * NSEC_PER_MSEC)
/* Turns between two looks at all the lists. */
#define DEEP_TURNS 32

struct urd_slot_row __real_urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e);
struct urd_slot_row __wrap_urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e);
void __real_urd_slot_dispatch(struct urd_slot *slot, struct urd_job *job);
void __wrap_urd_slot_dispatch(struct urd_slot *slot, struct urd_job *job);
void __real_urd_slot_retire(struct urd_slot *slot, enum urd_why why);
void __wrap_urd_slot_retire(struct urd_slot *slot, enum urd_why why);
void __real_slot_begin(struct urd_slot *slot, struct urd_job *job);
void __wrap_slot_begin(struct urd_slot *slot, struct urd_job *job);
void __real_urd_job_answer(struct urd_core *core, struct urd_job *job, enum urd_code code);
void __wrap_urd_job_answer(struct urd_core *core, struct urd_job *job, enum urd_code code);
void __real_urd_slot_complete(struct urd_slot *slot, const struct urd_done *done);
void __wrap_urd_slot_complete(struct urd_slot *slot, const struct urd_done *done);
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_listeners_init(struct urd_front *front, const struct urd_conf *conf, char *err,
			  size_t err_len);
void __wrap_urd_log_line(struct urd_log *log, enum urd_log_level level, const struct urd_tags *tags,
			 const char *fmt, ...) URD_PRINTF(4, 5);

/* ---- over the shoulder ---- */

struct urd_slot_row __wrap_urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e)
{
	struct urd_slot_row row = __real_urd_slot_fsm(s, e);

	sim_note(NOTE_STEP, sim.slot, s, e);
	sim_check(row.used, "an event in a state where it can't happen");
	sim_total.rows[s][e]++;
	return row;
}

void __wrap_urd_slot_dispatch(struct urd_slot *slot, struct urd_job *job)
{
	u64 due = urd_ns_add(job->arrived_ns, slot->pool->conf.queue_timeout_ns);

	sim_check(sim.now < urd_min(due, job->deadline_ns),
		  "a request is dispatched after its time");
	sim_check(!job->answered && !job->slot, "a request is dispatched that is not waiting");
	sim_check(job->pool == slot->pool, "a request is dispatched to another pool");
	sim.slot = slot->index;
	sim_note(NOTE_DISPATCH, slot->index, job->caller_msgid, job->attempt);
	__real_urd_slot_dispatch(slot, job);
}

void __wrap_urd_slot_retire(struct urd_slot *slot, enum urd_why why)
{
	if (why == URD_WHY_IDLE)
		sim_check(urd_pool_ready(slot->pool) > 1,
			  "the last that serves leaves for idleness");
	__real_urd_slot_retire(slot, why);
}

void __wrap_slot_begin(struct urd_slot *slot, struct urd_job *job)
{
	sim_check(!job->answered, "a request is sent that was answered");
	sim_check(sim.now < job->exec_due_ns, "a request is sent after its time");
	__real_slot_begin(slot, job);
}

void __wrap_urd_slot_complete(struct urd_slot *slot, const struct urd_done *done)
{
	sim.slot = slot->index;
	__real_urd_slot_complete(slot, done);
	sim.slot = 9999;
}

static void answer_is_due(const struct urd_job *job)
{
	const struct urd_pool *pool = job->pool;
	u64 due;

	if (job->slot)
		due = urd_min(job->exec_due_ns, job->deadline_ns);
	else
		due = urd_min(urd_ns_add(job->arrived_ns, pool->conf.queue_timeout_ns),
			      job->deadline_ns);
	if (due != URD_NEVER && job->attempt <= (job->slot != NULL))
		sim_check(sim.now <= due + SLACK_NS, "a request is answered long after its time");
}

void __wrap_urd_job_answer(struct urd_core *core, struct urd_job *job, enum urd_code code)
{
	const struct urd_pool *pool = job->pool;

	if (code == URD_BUSY && pool)
		sim_check(pool->queued >= pool->conf.queue_max ||
				  pool->queued_bytes + job->params_len > pool->conf.queue_max_bytes,
			  "a queue is full that is not");
	if (code == URD_EXEC_TIMEOUT)
		sim_check(job->slot && sim.now >= job->exec_due_ns, "a timeout before its time");
	if (pool)
		answer_is_due(job);
	__real_urd_job_answer(core, job, code);
}

/* The real listener closes what listeners_init() made, and that is ours. */
int __wrap_close(int fd)
{
	if (fd < SIM_FD_BASE)
		return __real_close(fd);
	if (fd == sim.listen_fd) {
		sim.listen_fd = -1;
		for (u16 i = 0; i < sim.o.clients; i++)
			client_wake(i, sim.now + sim_delay());
	}
	fd_close(fd);
	return 0;
}

int __wrap_listeners_init(struct urd_front *front, const struct urd_conf *conf, char *err,
			  size_t err_len)
{
	struct urd_listener *l;

	(void)err;
	(void)err_len;
	urd_assert(conf->listen_nr == 1);
	front->listeners = calloc(1, sizeof(*front->listeners));
	if (!front->listeners)
		return -ENOMEM;
	front->listeners_nr = 1;
	l = &front->listeners[0];
	l->front = front;
	l->fd = fd_new(FD_LISTEN, SIM_NONE, SIM_NONE, SIM_NONE);
	l->timer.kind = URD_TIMER_LISTENER;
	urd_op_init(front->core->ring, &l->op, URD_OP_LISTENER, 0);
	sim.listen_fd = l->fd;
	return 0;
}

void __wrap_urd_log_line(struct urd_log *log, enum urd_log_level level, const struct urd_tags *tags,
			 const char *fmt, ...)
{
	va_list ap;

	(void)log;
	if (!sim.trace || (tags && tags->stream))
		return;
	printf("%14.6f ms  log %d %s/%u: ", (double)(sim.now - sim.o.start_ns) / 1e6, (int)level,
	       tags && tags->pool ? tags->pool : "-", tags ? tags->worker : 0);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* ---- after each turn ---- */

void check_seen(u32 id, u16 worker)
{
	struct sim_req *r = &sim.req[id];

	sim_check(r->kind == REQ_WORK, "a worker sees what is not for workers");
	sim_check(!r->told_no, "a worker sees what was said not to be executed");
	if (worker == SIM_NONE) { /* one has begun to read it, and answers already */
		sim_check(!r->seen, "a request is executed twice");
		r->early_seen = true;
	} else if (r->seen) {
		sim_check(r->early_seen, "a request is executed twice");
		r->early_seen = false;
	}
	r->seen = 1;
}

static u32 list_count(const struct urd_list *head)
{
	u32 n = 0;

	for (const struct urd_list *l = head->next; l != head; l = l->next) {
		urd_assert(l->next->prev == l);
		n++;
	}
	return n;
}

static void check_pool(const struct urd_pool *pool)
{
	u32 requeued = pool->stats.retried ? pool->slots_nr * SIM_TASKS : 0;

	sim_check(urd_list_empty(&pool->queue) || urd_list_empty(&pool->open),
		  "a worker is free although a request waits");
	sim_check(pool->queued <= pool->conf.queue_max + requeued,
		  "a queue is longer than allowed");
	if (!requeued)
		sim_check(pool->queued_bytes <= pool->conf.queue_max_bytes,
			  "a queue is larger than allowed");
}

static void check_slot(const struct urd_slot *slot)
{
	bool room = urd_slot_room(slot) > 0;

	sim_check(list_count(&slot->jobs) == slot->jobs_nr, "a slot has miscounted its requests");
	if (room)
		sim_check(!slot->broken && (slot->state == SLOT_IDLE || slot->state == SLOT_BUSY) &&
				  slot->jobs_nr < slot->concurrency,
			  "a slot has room that has none");
	sim_check(room == !urd_list_empty(&slot->open), "a slot is listed as what it is not");
	sim_check((slot->child.pid != 0) == (slot->child.pidfd >= 0), "half a process");
	if (slot->state == SLOT_VACANT || slot->state == SLOT_BACKOFF ||
	    slot->state == SLOT_SPAWNING)
		for (u32 i = 0; i < SLOT_OP_NR; i++)
			sim_check(urd_op_is_idle(&slot->ops[i]), "an op of a process that is gone");
	if (slot->state >= SLOT_BOOTING && slot->state <= SLOT_KILLING && !slot->exited)
		sim_check(!urd_op_is_idle(&slot->ops[SLOT_OP_EXIT]), "nobody waits for an exit");
}

static void check_deep(void)
{
	const struct urd_core *core = &sim.urd->core;
	u32 jobs = 0;

	for (u32 i = 0; i < core->pools_nr; i++) {
		const struct urd_pool *pool = &core->pools[i];
		u32 n = list_count(&pool->queue);

		sim_check(n == pool->queued, "a queue has miscounted");
		jobs += n;
	}
	for (u32 i = 0; i < core->slots_nr; i++) {
		check_slot(&core->slots[i]);
		jobs += core->slots[i].jobs_nr;
	}
	sim_check(core->jobs_out >= jobs && core->jobs_out <= core->jobs_nr, "jobs do not add up");
	sim_check(core->arena.used <= core->arena.size, "more memory than there is");
}

void check_turn(void)
{
	const struct urd_core *core = &sim.urd->core;

	sim.turns++;
	for (u32 i = 0; i < core->pools_nr; i++)
		check_pool(&core->pools[i]);
	if (sim.turns % DEEP_TURNS == 0)
		check_deep();
}

void check_end(void)
{
	sim_check(sim.alive == 0, "a worker lives on after the end");
	/* the spawner's own descriptor is never closed: the thread ends with it */
	sim_check(sim.fd_open == 1, "a descriptor is open after the end");
	sim_check(sim.callers_open == 0, "a call has no answer at the end");
}

/* ---- coverage ---- */

void check_coverage(void)
{
	u32 all = 0, hit = 0;

	for (enum urd_slot_state s = 0; s < SLOT_NR; s++) {
		for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
			if (!__real_urd_slot_fsm(s, e).used)
				continue;
			all++;
			hit += sim_total.rows[s][e] > 0;
			if (!sim_total.rows[s][e])
				printf("  never: %s + %s\n", urd_slot_state_name(s),
				       urd_slot_event_name(e));
		}
	}
	printf("coverage: %u of %u rows of the slot machine\n", hit, all);
}
