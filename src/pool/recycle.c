// SPDX-License-Identifier: MIT
/*
 * Who leaves a pool, and how many workers it should have.
 *
 * A worker that is to be replaced is only marked (slot->leave).  While there are
 * such, the pool may have up to max_surge workers more than it wants; when one
 * of them is ready, a marked one retires.  So the replacement is there before
 * the old one goes, and if new ones do not start, the old ones stay.  With
 * max_surge = 0 the old one goes first, at most recycle_max at a time.
 *
 * Nothing here looks at single requests but for counting them.
 */
#include "pool/pool.h"
#include "pool/slot.h"

/* How often the memory of busy workers is looked at, if memory_hard is set. */
#define MEMORY_TICK_NS (100 * NSEC_PER_MSEC)

static bool slot_serves(const struct urd_slot *slot)
{
	return slot->state >= SLOT_IDLE && slot->state <= SLOT_GRACE;
}

static u32 pool_recycle_max(const struct urd_pool *pool)
{
	return pool->conf.recycle_max ? pool->conf.recycle_max : urd_max(pool->want / 10, 1u);
}

u32 urd_pool_target(const struct urd_pool *pool)
{
	u32 surge = urd_min(pool->leaving, pool_recycle_max(pool));

	return pool->want + urd_min(surge, pool->conf.max_surge);
}

/* ---- leaving ---- */

void urd_pool_leave(struct urd_slot *slot, enum urd_why why)
{
	if (slot->state == SLOT_BOOTING || slot->state == SLOT_SPAWNING ||
	    slot->state == SLOT_BACKOFF) {
		urd_slot_retire(slot, why);
		return;
	}
	if (!slot_serves(slot) || slot->leave)
		return;
	slot->leave = (u8)why;
	slot->pool->leaving++;
}

u32 urd_pool_leave_all(struct urd_pool *pool, enum urd_why why)
{
	u32 n = urd_pool_ready(pool) + pool->states[SLOT_SPAWNING] + pool->states[SLOT_BOOTING];

	pool->failures = 0;
	for (u32 i = 0; i < pool->slots_nr; i++)
		urd_pool_leave(&pool->slots[i], why);
	return n;
}

void urd_pool_left(struct urd_slot *slot)
{
	urd_assert(slot->leave && slot->pool->leaving > 0);
	slot->leave = URD_WHY_NONE;
	slot->pool->leaving--;
}

/* Which marked one goes first: whoever may not be given any more, then the idle. */
static struct urd_slot *pool_next_leaver(const struct urd_pool *pool)
{
	const struct urd_pool_conf *conf = &pool->conf;
	struct urd_slot *best = NULL;
	u32 best_rank = 0;

	for (u32 i = 0; i < pool->slots_nr; i++) {
		struct urd_slot *slot = &pool->slots[i];
		u32 rank = 1;

		if (!slot->leave || slot->state == SLOT_GRACE)
			continue;
		rank += slot->state == SLOT_IDLE;
		rank += conf->max_jobs && slot->given >= conf->max_jobs ? 2 : 0;
		if (rank > best_rank) {
			best = slot;
			best_rank = rank;
		}
	}
	return best;
}

static bool slot_is_spent(const struct urd_slot *slot)
{
	const struct urd_pool_conf *conf = &slot->pool->conf;

	return conf->max_jobs && slot->given >= conf->max_jobs;
}

/* May this one go now? */
static bool pool_can_spare(const struct urd_pool *pool, const struct urd_slot *slot)
{
	u32 ready = urd_pool_ready(pool);

	if (ready > pool->want)
		return true;
	/* without its replacement: if that is how it is wanted, or it can serve no more */
	if (pool->conf.max_surge && !slot_is_spent(slot))
		return false;
	return ready + pool_recycle_max(pool) > pool->want;
}

/*
 * The one that has been idle for longest; the list has the warmest first.  If all
 * are busy, and they may be so for ever, one that has the least to finish.
 */
static struct urd_slot *pool_coldest(const struct urd_pool *pool)
{
	struct urd_slot *best = NULL;

	if (!urd_list_empty(&pool->open)) {
		best = urd_list_last(&pool->open, struct urd_slot, open);
		if (best->state == SLOT_IDLE)
			return best;
	}
	best = NULL;
	for (u32 i = 0; i < pool->slots_nr; i++) {
		struct urd_slot *slot = &pool->slots[i];

		if (slot->state == SLOT_IDLE || slot->state == SLOT_BUSY)
			if (!best || slot->jobs_nr < best->jobs_nr)
				best = slot;
	}
	return best;
}

void urd_pool_balance(struct urd_pool *pool)
{
	struct urd_slot *slot;
	enum urd_why why;

	while (pool->leaving && (slot = pool_next_leaver(pool)) && pool_can_spare(pool, slot)) {
		why = slot->leave;
		urd_slot_retire(slot, why);
	}
	while (!pool->leaving && urd_pool_ready(pool) > pool->want) {
		slot = pool_coldest(pool);
		if (!slot)
			break;
		urd_slot_retire(slot, URD_WHY_SCALE);
	}
	urd_pool_fill(pool);
}

u32 urd_pool_reload(struct urd_pool *pool)
{
	struct urd_tags tags = { .pool = pool->conf.name };
	u32 n = urd_pool_leave_all(pool, URD_WHY_RELOAD);

	pr_info(pool->core->log, &tags, "reload: replacing %u workers", n);
	return n;
}

/* ---- reasons ---- */

/* A limit shortened at random, so that workers that began together do not end so. */
static u64 pool_jitter(struct urd_pool *pool, u64 limit)
{
	u64 range = limit / 100 * pool->conf.jitter_percent +
		    limit % 100 * pool->conf.jitter_percent / 100;

	return limit - urd_core_random(pool->core) % (range + 1);
}

void urd_pool_welcome(struct urd_slot *slot)
{
	struct urd_pool *pool = slot->pool;
	const struct urd_pool_conf *conf = &pool->conf;
	struct urd_tags tags = { .pool = conf->name,
				 .worker = slot->worker,
				 .pid = slot->child.pid };

	slot->idle_ns = pool->core->now_ns;
	slot->ttl_due_ns = conf->ttl_ns == URD_OFF ?
				   URD_NEVER :
				   urd_ns_add(slot->born_ns, pool_jitter(pool, conf->ttl_ns));
	slot->given_soft = conf->max_jobs ? (u32)pool_jitter(pool, conf->max_jobs) : 0;
	if (conf->memory_soft) {
		slot->rss_ready = urd_child_rss(&slot->child);
		if (slot->rss_ready >= conf->memory_soft)
			pr_warn(pool->core->log, &tags,
				"it is ready with %llu MiB, which is above memory_soft: the limit "
				"is not applied to it, or it would be replaced after each request",
				(unsigned long long)slot->rss_ready >> 20);
	}
	urd_pool_age(slot);
}

void urd_pool_begun(struct urd_slot *slot)
{
	struct urd_pool *pool = slot->pool;

	slot->given++;
	if (slot->given_soft && slot->given >= slot->given_soft)
		urd_pool_leave(slot, URD_WHY_MAX_JOBS);
	if (pool->conf.max_jobs && slot->given > pool->conf.max_jobs)
		pool->stats.overruns++;
	if (pool->conf.memory_hard && !urd_timer_is_set(&pool->memory_timer))
		urd_timer_set(&pool->core->heap, &pool->memory_timer,
			      pool->core->now_ns + MEMORY_TICK_NS);
}

void urd_pool_served(struct urd_slot *slot)
{
	const struct urd_pool_conf *conf = &slot->pool->conf;

	if (!conf->memory_soft || slot->leave || slot->rss_ready >= conf->memory_soft ||
	    !slot_serves(slot))
		return;
	if (urd_child_rss(&slot->child) >= conf->memory_soft)
		urd_pool_leave(slot, URD_WHY_MEMORY_SOFT);
}

void urd_pool_memory_due(struct urd_pool *pool)
{
	bool busy = false;

	for (u32 i = 0; i < pool->slots_nr; i++) {
		struct urd_slot *slot = &pool->slots[i];

		if (slot->state < SLOT_BUSY || slot->state > SLOT_RETIRING)
			continue;
		busy = true;
		if (urd_child_rss(&slot->child) >= pool->conf.memory_hard)
			urd_slot_kill(slot, URD_WHY_MEMORY_HARD);
	}
	if (busy)
		urd_timer_set(&pool->core->heap, &pool->memory_timer,
			      pool->core->now_ns + MEMORY_TICK_NS);
}

/* ---- how many ---- */

/* Idleness counts only for workers above the minimum; without those, nothing ticks. */
static u64 slot_idle_due(const struct urd_slot *slot)
{
	const struct urd_pool *pool = slot->pool;

	if (pool->want <= pool->conf.min_workers)
		return URD_NEVER;
	if (slot->state != SLOT_IDLE)
		return urd_ns_add(pool->core->now_ns, pool->conf.idle_timeout_ns);
	return urd_ns_add(slot->idle_ns, pool->conf.idle_timeout_ns);
}

void urd_pool_age(struct urd_slot *slot)
{
	u64 due = slot->leave ? URD_NEVER : slot->ttl_due_ns;

	urd_timer_set(&slot->core->heap, &slot->timer, urd_min(due, slot_idle_due(slot)));
}

void urd_pool_aged(struct urd_slot *slot)
{
	struct urd_pool *pool = slot->pool;
	u64 now = pool->core->now_ns;

	if (!slot_serves(slot))
		return;
	if (slot->ttl_due_ns <= now && !slot->leave) {
		urd_pool_leave(slot, URD_WHY_TTL);
	} else if (slot->state == SLOT_IDLE && slot_idle_due(slot) <= now) {
		pool->want--;
		/* not the last that serves, while others only try to */
		if (urd_pool_ready(pool) > pool->want) {
			urd_slot_retire(slot, URD_WHY_IDLE);
			return;
		}
	}
	urd_pool_age(slot);
}

static void pool_set_want(struct urd_pool *pool, u32 want)
{
	struct urd_tags tags = { .pool = pool->conf.name };

	if (want == pool->want)
		return;
	pr_info(pool->core->log, &tags, "scaling from %u to %u workers", pool->want, want);
	pool->want = want;
	for (u32 i = 0; i < pool->slots_nr; i++)
		if (slot_serves(&pool->slots[i]))
			urd_pool_age(&pool->slots[i]);
	urd_pool_fill(pool);
}

u32 urd_pool_scale(struct urd_pool *pool, u32 n)
{
	n = urd_max(n, 1u);
	n = urd_min(n, pool->conf.max_workers);
	pool->conf.min_workers = n;
	pool_set_want(pool, n);
	return n;
}

void urd_pool_scale_due(struct urd_pool *pool)
{
	u32 coming = pool->states[SLOT_SPAWNING] + pool->states[SLOT_BOOTING];
	u32 more;

	if (!pool->queued || pool->core->draining || pool->failed)
		return;
	/* one for each that waits, less those on their way, but at most doubling */
	if (pool->queued > coming) {
		more = urd_min(pool->queued - coming, pool->want);
		pool_set_want(pool, urd_min(pool->want + more, pool->conf.max_workers));
	}
	if (pool->want < pool->conf.max_workers)
		urd_timer_set(&pool->core->heap, &pool->scale_timer,
			      urd_ns_add(pool->core->now_ns,
					 urd_max(pool->conf.scale_after_ns, NSEC_PER_MSEC)));
}
