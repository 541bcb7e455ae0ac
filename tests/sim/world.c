// SPDX-License-Identifier: MIT
/*
 * One run: draw the options, open a urd, let a storm rage, end all faults and
 * see everything recover, prove it with requests that must succeed, and drain.
 */
#include <signal.h>
#include <stdio.h>

#include "sim.h"

/* World events, by sim_ev.idx. */
enum { WORLD_TICK, WORLD_SQUAT };

/* The script looks at where the run stands this often. */
#define TICK_NS (5 * NSEC_PER_MSEC)
#define TURNS_MAX 3000000u

/* ---- options ---- */

/* A rate that is off in most runs, so that others have the stage to themselves. */
static u64 rate(u64 max)
{
	return chance(350) ? rnd_log(1, max) : 0;
}

static void draw_pools(struct sim_opts *o)
{
	o->pools = rnd_between(1, SIM_POOLS);
	o->max_workers = rnd_between(1, 6);
	o->min_workers = rnd_between(1, o->max_workers);
	o->folk = rnd(3) ? 0 : rnd(1u << o->pools); /* one bit per pool */
	o->concurrency = chance(500) ? 1 : rnd_between(2, 12);
	o->queue_max = rnd_log(1, 256);
	o->queue_max_bytes = rnd_log(16 << 10, 4 << 20);
	o->blob_max = chance(700) ? rnd_log(64, 4096) : rnd_log(4096, SIM_BLOB_MAX);
	o->request_max = chance(800) ? URD_REQUEST_MAX : rnd_log(256, 64 << 10);
	o->response_max = o->blob_max + rnd_between(256, 1 << 20);
	o->boot_timeout = rnd_log(20, 1000) * NSEC_PER_MSEC;
	o->queue_timeout = rnd_log(20, 5000) * NSEC_PER_MSEC;
	o->exec_timeout = chance(100) ? URD_NEVER : rnd_log(20, 2000) * NSEC_PER_MSEC;
	o->stop_timeout = rnd_log(20, 1000) * NSEC_PER_MSEC;
	o->grace = rnd_log(1, 500) * NSEC_PER_MSEC;
	o->backoff_min = rnd_log(1, 100) * NSEC_PER_MSEC;
	o->backoff_max = o->backoff_min * rnd_between(1, 20);
	o->gone = rnd(3);
}

static void draw_front(struct sim_opts *o)
{
	o->clients = rnd_between(1, 12);
	o->conns_max = chance(900) ? o->clients + 8 : rnd_between(1, o->clients);
	o->inflight_max = chance(800) ? 1024 : rnd_between(1, 32);
	o->write_timeout = rnd_between(1, 5) * NSEC_PER_SEC;
	o->depth = rnd_log(1, SIM_OUTSTANDING - 1);
	o->callers = chance(300) ? rnd_between(1, 8) : 0;
	o->socket_bytes = rnd_log(4096, SIM_CHAN_BYTES);
	o->pipe_bytes = chance(300) ? 4096 : rnd_log(4096, SIM_CHAN_BYTES);
}

/* Who leaves a pool and when, and how many it has. */
static void draw_recycling(struct sim_opts *o)
{
	o->max_jobs = chance(250) ? rnd_log(1, 300) : 0;
	o->ttl = chance(200) ? rnd_log(50, 1000) * NSEC_PER_MSEC : URD_OFF;
	o->idle_timeout = rnd_log(1, 1000) * NSEC_PER_MSEC;
	o->scale_after = rnd_log(1, 200) * NSEC_PER_MSEC;
	o->max_surge = rnd(3);
	o->recycle_max = rnd(3);
	o->rss_base = rnd_log(1 << 20, 64 << 20);
	o->rss_step = rnd_log(1, 1 << 20);
	o->memory_soft = chance(150) ? o->rss_base / 2 + rnd_log(1 << 10, 32 << 20) : 0;
	o->memory_hard = chance(150) ? o->rss_base + rnd_log(1 << 20, 32 << 20) : 0;
	o->heartbeat = chance(200) ? rnd_log(20, 500) * NSEC_PER_MSEC : URD_OFF;
	o->stream = rate(500);
	o->stream_gap = chance(200) ? rnd_log(20, 500) * NSEC_PER_MSEC : URD_OFF;
	o->orders = rate(300);
}

static void draw_opts(void)
{
	struct sim_opts *o = &sim.o;
	bool calm = chance(250);

	o->requests = rnd_between(100, 3000);
	draw_pools(o);
	draw_front(o);
	draw_recycling(o);
	o->work_max = rnd_log(1, 5000) * NSEC_PER_USEC;
	o->think_max = chance(500) ? 0 : rnd_log(1, 5000) * NSEC_PER_USEC;
	o->boot_max = rnd_log(10, 10000) * NSEC_PER_USEC;
	o->lag = rate(50);
	o->lag_max = rnd_log(10, 2000) * NSEC_PER_USEC;
	o->short_io = rate(600);
	o->batch = rnd(1001);
	o->chatter = rate(1000);
	o->odd_request = rate(200);
	o->start_ns = rnd_between(1, 1000000) * NSEC_PER_MSEC;
	o->drain_mid = chance(200);
	o->drain_timeout = rnd_log(1, 5000) * NSEC_PER_MSEC;
	sim.calm = calm;
	if (calm) {
		o->exec_timeout = urd_max(o->exec_timeout, 2 * NSEC_PER_SEC);
		o->heartbeat = URD_OFF;
		o->stream_gap = URD_OFF;
		o->memory_hard = 0;
		return;
	}
	o->spawn_fault = rate(500);
	o->spawn_slow = rate(200);
	o->worker_fault = rate(700);
	o->task_fault = rate(100);
	o->stall = rate(20);
	o->retire = rate(100);
	o->client_fault = rate(700);
	o->cancel = rate(200);
	o->deadline = rate(500);
	o->accept_fault = rate(300);
	o->squat = rate(800);
	o->heirs = rate(500);
}

/* ---- memory that is taken away for a while ---- */

static void squat_leave(void)
{
	while (sim.squat_nr)
		urd_arena_put(&sim.urd->core.arena, &sim.squat[--sim.squat_nr]);
}

static void squat_turn(void)
{
	struct urd_arena *a = &sim.urd->core.arena;

	squat_leave();
	if (!sim.faulty || sim.phase != PHASE_STORM)
		return;
	if (chance(sim.o.squat)) {
		/* the largest blocks first, down to a drawn size: little is left, or nothing */
		u64 least = rnd_log(512, 1 << 20);

		for (u64 size = 8 << 20; size >= least && sim.squat_nr < SIM_SQUATS; size /= 2)
			while (sim.squat_nr < SIM_SQUATS &&
			       !urd_arena_get(a, size, &sim.squat[sim.squat_nr]))
				sim.squat_nr++;
		sim_note(NOTE_SQUAT, sim.squat_nr, a->used, 0);
	}
	ev_push(sim.now + rnd_log(NSEC_PER_MSEC, 300 * NSEC_PER_MSEC), EV_WORLD, WORLD_SQUAT, 0);
}

/* ---- the script ---- */

static bool squat_due;
static bool tick_due;

void world_ev(u32 idx)
{
	sim.world_due = true;
	if (idx == WORLD_SQUAT)
		squat_due = true;
	else
		tick_due = true;
}

bool world_ready(void)
{
	for (u32 i = 0; i < sim.urd->core.pools_nr; i++) {
		const struct urd_pool *pool = &sim.urd->core.pools[i];

		if (urd_pool_ready(pool) < pool->conf.min_workers)
			return false;
		/* the wait after earlier failures is over, too */
		if (pool->states[SLOT_BACKOFF] || pool->states[SLOT_SPAWNING] ||
		    pool->states[SLOT_BOOTING])
			return false;
	}
	return true;
}

static void phase_begin(enum sim_phase phase)
{
	sim.phase = (u8)phase;
	sim_note(NOTE_PHASE, phase, sim.req_nr, sim.req_open);
}

/* In what time all must be well once nobody does anything wrong any more. */
static u64 heal_ns(void)
{
	const struct sim_opts *o = &sim.o;
	u64 exec = o->exec_timeout == URD_NEVER ? 0 : o->exec_timeout;

	return 3 * (o->boot_timeout + o->queue_timeout + exec + o->stop_timeout + o->grace +
		    o->backoff_max) +
	       o->write_timeout + 10 * NSEC_PER_SEC;
}

static void heal(u64 *until)
{
	sim.faulty = false;
	squat_leave();
	spawn_heal();
	workers_heal();
	clients_heal();
	*until = sim.now + heal_ns();
	phase_begin(PHASE_HEAL);
}

static void drain(u64 *until)
{
	u64 timeout = sim.o.drain_timeout;

	squat_leave();
	phase_begin(PHASE_DRAIN);
	(void)urd_drain(sim.urd, timeout);
	*until = sim.now + timeout + heal_ns();
}

/* What an operator may ask for at any time. */
static void order(void)
{
	char name[8];
	int ret;

	snprintf(name, sizeof(name), "p%u", (u32)rnd(sim.o.pools));
	if (chance(500))
		ret = urd_scale(sim.urd, name, (u32)rnd_between(1, sim.o.max_workers));
	else
		ret = urd_reload(sim.urd, chance(300) ? NULL : name);
	sim_check(ret >= 0, "an order is refused");
}

/* A look at the run: is it time for the next phase? */
static void script(u64 *until)
{
	if (squat_due) {
		squat_due = false;
		squat_turn();
	}
	switch ((enum sim_phase)sim.phase) {
	case PHASE_STORM:
		if (chance(sim.o.orders))
			order();
		if (sim.o.drain_mid && sim.req_nr > sim.req_limit / 2)
			drain(until);
		else if (sim.req_nr >= sim.req_limit || sim.now > *until)
			heal(until);
		break;
	case PHASE_HEAL:
		if (!sim.req_open && world_ready()) {
			sim.req_limit = sim.req_nr + 20;
			phase_begin(PHASE_PROOF);
			clients_heal();
			*until = sim.now + heal_ns();
			break;
		}
		sim_check(sim.now <= *until, sim.req_open ? "a request is never answered" :
							    "workers do not come back");
		break;
	case PHASE_PROOF:
		if (sim.req_nr >= sim.req_limit && !sim.req_open)
			drain(until);
		else
			sim_check(sim.now <= *until, "what should go well does not go at all");
		break;
	case PHASE_DRAIN:
		sim_check(sim.now <= *until, "the drain does not end");
		break;
	case PHASE_OVER:
		break;
	}
}

static void tick_arm(void)
{
	u64 t = sim.now + TICK_NS;

	tick_due = false;
	if (sim.o.callers && sim.phase == PHASE_STORM)
		t = urd_min(t, sim.caller_at);
	ev_push(t, EV_WORLD, WORLD_TICK, 0);
}

static void world_open(void)
{
	static const char *const argv[] = { "model", NULL };
	static const char *const names[] = { "p0", "p1", "p2" };
	static const struct urd_listen_conf listen = { .address = "unix:none" };
	const struct sim_opts *o = &sim.o;
	struct urd_pool_conf pools[SIM_POOLS];
	struct urd_conf conf = URD_CONF_INIT;
	char err[256];

	for (u32 i = 0; i < o->pools; i++) {
		pools[i] = (struct urd_pool_conf)URD_POOL_CONF_INIT;
		pools[i].name = names[i];
		pools[i].argv = argv;
		pools[i].clear_env = true;
		pools[i].protocol = o->folk >> i & 1 ? URD_PROTOCOL_FOLK : URD_PROTOCOL_URD;
		pools[i].min_workers = (u32)o->min_workers;
		pools[i].max_workers = (u32)o->max_workers;
		pools[i].boot_timeout_ns = o->boot_timeout;
		pools[i].queue_timeout_ns = o->queue_timeout;
		pools[i].exec_timeout_ns = o->exec_timeout;
		pools[i].stop_timeout_ns = o->stop_timeout;
		pools[i].cancel_grace_ns = o->grace;
		pools[i].queue_max = (u32)o->queue_max;
		pools[i].queue_max_bytes = o->queue_max_bytes;
		pools[i].request_max = (u32)o->request_max;
		pools[i].response_max = (u32)o->response_max;
		pools[i].backoff_min_ns = o->backoff_min;
		pools[i].backoff_max_ns = o->backoff_max;
		pools[i].max_jobs = (u32)o->max_jobs;
		pools[i].ttl_ns = o->ttl;
		pools[i].idle_timeout_ns = o->idle_timeout;
		pools[i].scale_after_ns = o->scale_after;
		pools[i].max_surge = (u32)o->max_surge;
		pools[i].recycle_max = (u32)o->recycle_max;
		pools[i].memory_soft = o->memory_soft;
		pools[i].memory_hard = o->memory_hard;
		pools[i].heartbeat_timeout_ns = o->heartbeat;
		pools[i].stream_gap_ns = o->stream_gap;
		pools[i].gone = (enum urd_gone)o->gone;
	}
	conf.pools = pools;
	conf.pools_nr = (u32)o->pools;
	conf.listen = &listen;
	conf.listen_nr = 1;
	conf.conns_max = (u32)o->conns_max;
	conf.conn_inflight_max = (u32)o->inflight_max;
	conf.client_write_timeout_ns = o->write_timeout;
	conf.memory = 16 << 20;
	conf.log_level = sim.trace ? URD_LOG_INFO : URD_LOG_ERROR;
	conf.log_fd = -1;
	conf.log_line_max = 256;
	sim_check(urd_open(&conf, URD_OPEN_LOOP, &sim.urd, err, sizeof(err)) == 0, err);
}

static void total_add(void)
{
	sim_total.requests += sim.req_nr;
	sim_total.turns += sim.turns;
	sim_total.virtual_ns += sim.now - sim.o.start_ns;
	for (u32 i = 0; i < URD_CODE_NR; i++)
		sim_total.outcomes[i] += sim.outcomes[i];
	for (u32 i = 0; i < sim.urd->core.pools_nr; i++)
		sim_total.spawns += sim.urd->core.pools[i].stats.spawns;
}

void world_run(u64 seed, bool trace)
{
	u64 until;

	memset(&sim, 0, sizeof(sim));
	sim.seed = seed;
	sim.trace = trace;
	sim.faulty = true;
	sim.pid = 1000;
	sim.listen_fd = -1;
	squat_due = false;
	tick_due = false;
	rnd_seed(seed);
	fds_reset();
	draw_opts();
	sim.now = sim.o.start_ns;
	sim.req_limit = (u32)sim.o.requests;
	world_open();
	clients_init();
	until = sim.now + 20 * NSEC_PER_SEC;
	if (sim.o.squat)
		ev_push(sim.now + rnd(50 * NSEC_PER_MSEC), EV_WORLD, WORLD_SQUAT, 0);
	tick_arm();
	while (host_turn(sim.urd, URD_NEVER)) {
		check_turn();
		sim_check(sim.turns < TURNS_MAX, "the loop spins");
		if (!sim.world_due)
			continue;
		sim.world_due = false;
		if (sim.o.callers && sim.caller_at <= sim.now)
			callers_step();
		script(&until);
		if (tick_due)
			tick_arm();
	}
	sim_check(sim.phase == PHASE_DRAIN, "it ended before it was told to");
	total_add();
	phase_begin(PHASE_OVER);
	urd_close(sim.urd);
	check_end();
}
