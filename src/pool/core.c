// SPDX-License-Identifier: MIT
/*
 * Making and running one ring thread's world.  What belongs to clients and
 * callers is in front/ and host/; here are pools, slots, jobs and their memory.
 */
#include "pool/core.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "pool/pool.h"
#include "pool/slot.h"

static size_t lines_bytes(const struct urd_core *core)
{
	return (size_t)core->slots_nr * urd_slot_text(core);
}

static int core_pools(struct urd_core *core, const struct urd_conf *conf)
{
	char *lines = NULL;
	u32 n = 0;
	int ret;

	if (core->slots_nr) {
		/* pages of output that never comes are never touched */
		lines = mmap(NULL, lines_bytes(core), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (lines == MAP_FAILED)
			return -ENOMEM;
		core->lines = lines;
	}
	for (u32 i = 0; i < conf->pools_nr; i++) {
		struct urd_pool *pool = &core->pools[i];

		ret = urd_pool_init(pool, core, i, &conf->pools[i]);
		core->pools_nr++;
		if (ret)
			return ret;
		pool->slots = &core->slots[n];
		pool->slots_nr = urd_pool_slots(&conf->pools[i]);
		for (u32 k = 0; k < pool->slots_nr; k++, n++)
			urd_slot_init(&core->slots[n], pool, n, k, lines + n * urd_slot_text(core));
	}
	urd_assert(n == core->slots_nr);
	return 0;
}

int urd_core_init(struct urd_core *core, const struct urd_core_conf *cc, struct urd_log *log)
{
	const struct urd_conf *conf = cc->conf;
	struct urd_ring_conf rc = { .ops_max = cc->ops_extra + 1 };
	int ret;

	memset(core, 0, sizeof(*core));
	core->log = log;
	core->line_max = conf->log_line_max;
	core->jobs_nr = cc->jobs_extra;
	urd_list_init(&core->jobs_free);
	urd_list_init(&core->done);
	urd_list_init(&core->chunks);
	urd_list_init(&core->chunks_free);
	urd_list_init(&core->starved);
	for (u32 i = 0; i < conf->pools_nr; i++) {
		core->slots_nr += urd_pool_slots(&conf->pools[i]);
		core->jobs_nr += conf->pools[i].queue_max;
	}
	core->jobs_nr += core->slots_nr;
	rc.ops_max += core->slots_nr * SLOT_OP_NR;
	core->heap.max = core->jobs_nr + core->slots_nr + 2 * conf->pools_nr + cc->timers_extra;

	core->jobs = calloc(core->jobs_nr, sizeof(*core->jobs));
	core->slots = calloc(core->slots_nr + 1, sizeof(*core->slots));
	core->pools = calloc(conf->pools_nr, sizeof(*core->pools));
	core->chunk_mem = calloc(URD_CORE_CHUNKS, sizeof(*core->chunk_mem));
	core->heap.v = calloc(core->heap.max, sizeof(*core->heap.v));
	ret = -ENOMEM;
	if (!core->jobs || !core->slots || !core->pools || !core->heap.v || !core->chunk_mem)
		goto out_free;
	for (u32 i = 0; i < core->jobs_nr; i++) {
		urd_list_init(&core->jobs[i].node);
		urd_list_push(&core->jobs_free, &core->jobs[i].node);
	}
	for (u32 i = 0; i < URD_CORE_CHUNKS; i++) {
		urd_list_init(&core->chunk_mem[i].node);
		urd_list_push(&core->chunks_free, &core->chunk_mem[i].node);
	}
	ret = urd_arena_init(&core->arena, conf->memory);
	if (ret)
		goto out_free;
	ret = urd_ring_new(&rc, &core->ring);
	if (ret)
		goto out_arena;
	core->now_ns = urd_ring_now(core->ring);
	core->random = core->now_ns | 1;
	urd_op_init(core->ring, &core->spawn_op, URD_OP_SPAWNER, 0);
	ret = core_pools(core, conf);
	if (ret)
		goto out_pools;
	return 0;

out_pools:
	for (u32 i = 0; i < core->pools_nr; i++)
		urd_pool_fini(&core->pools[i]);
	if (core->lines)
		munmap(core->lines, lines_bytes(core));
	urd_ring_free(core->ring);
out_arena:
	urd_arena_fini(&core->arena);
out_free:
	free(core->chunk_mem);
	free(core->heap.v);
	free(core->pools);
	free(core->slots);
	free(core->jobs);
	return ret;
}

void urd_core_fini(struct urd_core *core)
{
	struct urd_done done[16];

	urd_assert(core->jobs_out == 0);
	urd_spawner_stop(core->spawner);
	urd_op_cancel(core->ring, &core->spawn_op);
	while (!urd_op_is_idle(&core->spawn_op)) {
		u32 n = urd_ring_turn(core->ring, 0, done, ARRAY_SIZE(done));

		for (u32 i = 0; i < n; i++)
			urd_done_begin(&done[i]);
	}
	for (u32 i = 0; i < core->pools_nr; i++)
		urd_pool_fini(&core->pools[i]);
	if (core->lines)
		munmap(core->lines, lines_bytes(core));
	urd_ring_free(core->ring);
	urd_arena_fini(&core->arena);
	free(core->chunk_mem);
	free(core->heap.v);
	free(core->pools);
	free(core->slots);
	free(core->jobs);
}

static void core_arm_spawner(struct urd_core *core)
{
	urd_op_read(core->ring, &core->spawn_op, urd_spawner_fd(core->spawner), core->spawned,
		    sizeof(core->spawned), URD_NEVER);
}

int urd_core_start(struct urd_core *core)
{
	int ret = urd_spawner_start(&core->spawner);

	if (ret)
		return ret;
	core_arm_spawner(core);
	for (u32 i = 0; i < core->pools_nr; i++)
		urd_pool_fill(&core->pools[i]);
	return 0;
}

static void core_spawned(struct urd_core *core, s32 res)
{
	if (res <= 0) {
		urd_assert(res == -ECANCELED);
		return;
	}
	urd_assert(res % (s32)sizeof(struct urd_spawned) == 0);
	for (u32 i = 0; i < (u32)res / sizeof(struct urd_spawned); i++) {
		urd_assert(core->spawned[i].slot < core->slots_nr);
		urd_slot_spawned(&core->slots[core->spawned[i].slot], &core->spawned[i]);
	}
	core_arm_spawner(core);
}

bool urd_core_complete(struct urd_core *core, const struct urd_done *done)
{
	if (done->op->kind == URD_OP_SLOT) {
		struct urd_op *first = done->op - done->op->sub;

		urd_slot_complete(container_of(first, struct urd_slot, ops[0]), done);
		return true;
	}
	if (done->op->kind == URD_OP_SPAWNER) {
		core_spawned(core, done->res);
		return true;
	}
	return false;
}

bool urd_core_timer(struct urd_core *core, struct urd_timer *t)
{
	if (t->kind == URD_TIMER_JOB) {
		struct urd_job *job = container_of(t, struct urd_job, due);

		urd_pool_withdraw(job->pool, job);
		urd_job_answer(core, job, URD_QUEUE_TIMEOUT);
		return true;
	}
	if (t->kind == URD_TIMER_SLOT) {
		urd_slot_timer(container_of(t, struct urd_slot, timer));
		return true;
	}
	if (t->kind == URD_TIMER_SCALE) {
		urd_pool_scale_due(container_of(t, struct urd_pool, scale_timer));
		return true;
	}
	if (t->kind == URD_TIMER_MEMORY) {
		urd_pool_memory_due(container_of(t, struct urd_pool, memory_timer));
		return true;
	}
	return false;
}

void urd_core_settle(struct urd_core *core)
{
	struct urd_list again;

	urd_list_init(&again);
	while (!urd_list_empty(&core->starved)) {
		struct urd_slot *slot = urd_list_first(&core->starved, struct urd_slot, hungry);

		urd_list_del(&slot->hungry);
		urd_list_push(&again, &slot->hungry);
	}
	while (!urd_list_empty(&again)) {
		struct urd_slot *slot = urd_list_first(&again, struct urd_slot, hungry);

		urd_list_del(&slot->hungry);
		urd_slot_feed(slot); /* puts itself back if there is still nothing */
	}
	for (u32 i = 0; i < core->pools_nr; i++) {
		struct urd_pool *pool = &core->pools[i];

		urd_pool_kick(pool);
		urd_pool_balance(pool);
		urd_assert(urd_list_empty(&pool->queue) || urd_list_empty(&pool->open));
	}
}

bool urd_core_drain(struct urd_core *core)
{
	bool empty = true;

	urd_assert(core->draining);
	for (u32 i = 0; i < core->pools_nr; i++) {
		struct urd_pool *pool = &core->pools[i];

		if (pool->queued)
			empty = false;
		for (u32 k = 0; k < pool->slots_nr; k++) {
			struct urd_slot *slot = &pool->slots[k];

			bool here = slot->state < SLOT_RETIRING || slot->state == SLOT_BACKOFF;

			if (here && !pool->queued && slot->state != SLOT_VACANT && !slot->unwanted)
				urd_slot_retire(slot, URD_WHY_DRAIN);
			if (slot->state != SLOT_VACANT)
				empty = false;
		}
	}
	return empty;
}

void urd_core_cut(struct urd_core *core)
{
	for (u32 i = 0; i < core->pools_nr; i++) {
		struct urd_pool *pool = &core->pools[i];

		while (!urd_list_empty(&pool->queue)) {
			struct urd_job *job = urd_list_first(&pool->queue, struct urd_job, node);

			urd_pool_withdraw(pool, job);
			urd_job_answer(core, job, URD_DRAINING);
		}
		/* the others are on their way out already, at their own pace */
		for (u32 k = 0; k < pool->slots_nr; k++)
			if (pool->slots[k].jobs_nr || pool->slots[k].state == SLOT_BOOTING)
				urd_slot_kill(&pool->slots[k], URD_WHY_DRAIN);
	}
}

/* splitmix64: good enough for jitter, and the same everywhere for the same seed */
u64 urd_core_random(struct urd_core *core)
{
	u64 z = (core->random += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct urd_pool *urd_core_pool(struct urd_core *core, struct urd_span name)
{
	for (u32 i = 0; i < core->pools_nr; i++) {
		const char *n = core->pools[i].conf.name;

		if (strlen(n) == name.len && !memcmp(n, name.p, name.len))
			return &core->pools[i];
	}
	return NULL;
}
