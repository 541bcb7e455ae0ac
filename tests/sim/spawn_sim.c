// SPDX-License-Identifier: MIT
/*
 * spawn.h without processes: the spawner answers a drawn time later, or fails,
 * and the calls that end a process and collect it act on a model worker.
 */
#include "ring/spawn.h"

#include "sim.h"

#define ASKS_MAX 512u

struct urd_spawner {
	struct urd_spawn_ask ask[ASKS_MAX];
	u32 ask_at;
	u32 ask_nr;
	struct urd_spawned answer[ASKS_MAX];
	u32 answer_at;
	u32 answer_nr;
	int fd;
	bool running;
};

static struct urd_spawner the_spawner;

int urd_spawner_start(struct urd_spawner **sp)
{
	memset(&the_spawner, 0, sizeof(the_spawner));
	the_spawner.fd = fd_new(FD_SPAWNER, SIM_NONE, SIM_NONE, SIM_NONE);
	the_spawner.running = true;
	*sp = &the_spawner;
	return 0;
}

void urd_spawner_stop(struct urd_spawner *sp)
{
	if (!sp)
		return;
	sim_check(sp->running, "the spawner is stopped twice");
	sim_check(!sp->answer_nr && !sp->ask_nr, "the spawner is stopped with work to do");
	sp->running = false;
}

int urd_spawner_fd(const struct urd_spawner *sp)
{
	return sp->fd;
}

int urd_spawner_ask(struct urd_spawner *sp, const struct urd_spawn_ask *ask)
{
	if (sp->ask_nr == ASKS_MAX)
		return -EAGAIN;
	sim_check(sp->running, "a spawn is asked for after the end");
	sp->ask[(sp->ask_at + sp->ask_nr++) % ASKS_MAX] = *ask;
	ev_push(sim.now + (sim.faulty && chance(sim.o.spawn_slow) ?
				   rnd_log(NSEC_PER_MSEC, NSEC_PER_SEC) :
				   rnd_between(50, 500) * NSEC_PER_USEC),
		EV_SPAWN, 0, 0);
	return 0;
}

void spawn_heal(void)
{
	for (u32 i = 0; i < the_spawner.ask_nr; i++)
		ev_push(sim.now + sim_delay(), EV_SPAWN, 0, 0);
}

bool spawn_has(void)
{
	return the_spawner.answer_nr > 0;
}

u32 spawn_take(struct urd_spawned *to, u32 max)
{
	u32 n = urd_min(max, the_spawner.answer_nr);

	if (n > 1 && chance(sim.o.short_io))
		n = (u32)rnd_between(1, n);
	for (u32 i = 0; i < n; i++) {
		to[i] = the_spawner.answer[the_spawner.answer_at];
		the_spawner.answer_at = (the_spawner.answer_at + 1) % ASKS_MAX;
		the_spawner.answer_nr--;
	}
	return n;
}

static u16 slot_pool_index(u32 slot)
{
	return (u16)sim.urd->core.slots[slot].pool->index;
}

/* Our ends of the channels of a new worker. */
static void spawn_child(struct urd_child *c, u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];

	c->pid = w->pid;
	c->pidfd = fd_new(FD_PIDFD, SIM_NONE, SIM_NONE, idx);
	c->out_rd = fd_new(FD_STREAM, w->ch[W_OUT], SIM_NONE, idx);
	c->err_rd = fd_new(FD_STREAM, w->ch[W_ERR], SIM_NONE, idx);
	if (w->folk) {
		c->task_rd = fd_new(FD_STREAM, w->ch[W_TASK_OUT], w->ch[W_TASK_IN], idx);
		c->ctl_rd = fd_new(FD_STREAM, w->ch[W_CTL_OUT], w->ch[W_CTL_IN], idx);
		c->task_wr = c->task_rd;
		c->ctl_wr = c->ctl_rd;
		return;
	}
	c->task_wr = fd_new(FD_STREAM, SIM_NONE, w->ch[W_TASK_IN], idx);
	c->task_rd = fd_new(FD_STREAM, w->ch[W_TASK_OUT], SIM_NONE, idx);
	c->ctl_wr = fd_new(FD_STREAM, SIM_NONE, w->ch[W_CTL_IN], idx);
	c->ctl_rd = fd_new(FD_STREAM, w->ch[W_CTL_OUT], SIM_NONE, idx);
}

void spawn_ev(void)
{
	static const s32 errors[] = { -ENOENT, -EACCES, -EAGAIN, -ENOMEM, -EMFILE };
	struct urd_spawner *sp = &the_spawner;
	struct urd_spawned *res;
	struct urd_spawn_ask *ask;
	u16 w;

	if (!sp->ask_nr)
		return;
	ask = &sp->ask[sp->ask_at];
	sp->ask_at = (sp->ask_at + 1) % ASKS_MAX;
	sp->ask_nr--;
	urd_assert(sp->answer_nr < ASKS_MAX);
	res = &sp->answer[(sp->answer_at + sp->answer_nr++) % ASKS_MAX];
	memset(res, 0, sizeof(*res));
	res->slot = ask->slot;
	if (sim.faulty && chance(sim.o.spawn_fault)) {
		sim.worker_faults++;
		res->err = errors[rnd(ARRAY_SIZE(errors))];
		res->step = "exec";
		sim_note(NOTE_SPAWN_FAIL, ask->slot, (u64)(s64)res->err, 0);
	} else {
		w = worker_new(ask->slot, slot_pool_index(ask->slot),
			       ask->spec->protocol == URD_PROTOCOL_FOLK);
		spawn_child(&res->child, w);
		sim_note(NOTE_SPAWN, w, ask->slot, (u64)res->child.pid);
	}
	ring_spawned();
}

/* ---- the end of a process ---- */

static struct sim_worker *child_worker(const struct urd_child *c)
{
	struct sim_worker *w;

	sim_check(c->pidfd >= 0, "a child without a pidfd");
	w = &sim.worker[fd_get(c->pidfd)->worker];
	sim_check(w->used && w->pid == c->pid, "a pidfd of another process");
	return w;
}

void urd_child_signal(const struct urd_child *c, int sig)
{
	struct sim_worker *w;
	u16 idx;

	if (c->pidfd < 0)
		return;
	w = child_worker(c);
	idx = (u16)(w - sim.worker);
	sim_note(NOTE_SIGNAL, idx, (u64)sig, (u64)w->pid);
	if (w->dead)
		return;
	if (sig == SIGTERM) {
		w->term = true;
		worker_wake(idx, sim.now + sim_delay());
	} else if (sig == SIGKILL && !w->killed) {
		w->killed = true;
		ev_push(sim.now + rnd_between(20, 300) * NSEC_PER_USEC + sim_delay(), EV_KILL, idx,
			(u32)w->pid);
	}
}

void urd_child_kill_all(const struct urd_child *c)
{
	struct sim_worker *w = child_worker(c);
	u16 idx = (u16)(w - sim.worker);

	sim_check(!w->reaped, "a group is killed after its leader was collected");
	urd_child_signal(c, SIGKILL);
	if (w->dead && w->heirs && !w->escaped)
		worker_heirs_gone(idx);
}

int urd_child_reap(const struct urd_child *c, siginfo_t *info)
{
	struct sim_worker *w = child_worker(c);

	memset(info, 0, sizeof(*info));
	if (!w->dead)
		return -EAGAIN;
	sim_check(!w->reaped, "a process is collected twice");
	w->reaped = true;
	info->si_pid = w->pid;
	info->si_code = w->status_code;
	info->si_status = w->status;
	sim_note(NOTE_REAP, (u32)(w - sim.worker), (u64)w->pid, 0);
	return 0;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		fd_close(*fd);
	*fd = -1;
}

void urd_child_end_input(struct urd_child *c)
{
	if (c->task_wr >= 0 && c->task_wr == c->task_rd)
		fd_shut_write(c->task_wr);
	else
		close_one(&c->task_wr);
}

void urd_child_close(struct urd_child *c)
{
	if (c->pidfd >= 0)
		sim_check(child_worker(c)->reaped,
			  "a process is forgotten before it was collected");
	if (c->task_rd == c->task_wr)
		c->task_rd = -1;
	if (c->ctl_rd == c->ctl_wr)
		c->ctl_rd = -1;
	close_one(&c->task_wr);
	close_one(&c->task_rd);
	close_one(&c->ctl_wr);
	close_one(&c->ctl_rd);
	close_one(&c->out_rd);
	close_one(&c->err_rd);
	close_one(&c->pidfd);
	c->pid = 0;
}

u64 urd_child_rss(const struct urd_child *c)
{
	struct sim_worker *w = child_worker(c);

	/* it grows with each request */
	if (!sim.faulty)
		return 1;
	return sim.o.rss_base + (u64)w->served * sim.o.rss_step;
}
