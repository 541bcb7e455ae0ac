// SPDX-License-Identifier: MIT
/*
 * Policy of a pool: who is accepted, who waits, which worker gets what, how many
 * workers there are, and what callers are told when none will start.
 */
#include "pool/pool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pool/slot.h"

extern char **environ;

/* Failures in a row, with no worker alive, after which callers are told at once. */
#define POOL_FAILURES_MAX 3u
/* Doublings of the backoff; more would overflow before the limit is met. */
#define POOL_DOUBLINGS_MAX 20u

/* ---- start and end ---- */

u32 urd_pool_slots(const struct urd_pool_conf *conf)
{
	/* as many again for workers that are on their way out, and those that replace them */
	return 2 * conf->max_workers + conf->max_surge + 1;
}

static char **copy_strings(const char *const *v, u32 extra)
{
	char **copy;
	u32 n = 0;

	while (v && v[n])
		n++;
	copy = calloc((size_t)n + extra + 1, sizeof(char *));
	for (u32 i = 0; copy && i < n; i++) {
		copy[i] = strdup(v[i]);
		if (!copy[i])
			return NULL; /* at start-up: the process gives up */
	}
	return copy;
}

static void free_strings(char **v)
{
	for (u32 i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

static bool env_same_name(const char *a, const char *b)
{
	size_t n = strcspn(a, "=");

	return !strncmp(a, b, n) && (b[n] == '=' || !b[n]);
}

/* Set a variable, replacing one of the same name. @s is taken over. */
static int env_set(struct urd_spawn_spec *spec, char *s)
{
	if (!s)
		return -ENOMEM;
	for (u32 i = 0; i < spec->envp_nr; i++) {
		if (env_same_name(spec->envp[i], s)) {
			free(spec->envp[i]);
			spec->envp[i] = s;
			return 0;
		}
	}
	if (spec->envp_nr >= URD_SPAWN_ENV_MAX) {
		free(s);
		return -E2BIG;
	}
	spec->envp[spec->envp_nr++] = s;
	return 0;
}

static int URD_PRINTF(2, 3) env_setf(struct urd_spawn_spec *spec, const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? -ENOMEM : env_set(spec, s);
}

static bool env_passes(const struct urd_pool_conf *conf, const char *var)
{
	for (u32 i = 0; conf->env_pass && conf->env_pass[i]; i++)
		if (env_same_name(conf->env_pass[i], var))
			return true;
	/* what another urd told us is not for our workers */
	return !conf->clear_env && strncmp(var, "URD_", 4) && strncmp(var, "FOLK_", 5);
}

/* Who has become another one must not look for his files in the home of the first. */
static int pool_env_user(struct urd_spawn_spec *spec)
{
	int ret = env_setf(spec, "HOME=%s", spec->home);

	if (!ret)
		ret = env_setf(spec, "USER=%s", spec->user);
	return ret ? ret : env_setf(spec, "LOGNAME=%s", spec->user);
}

static int pool_env(struct urd_pool *pool, const struct urd_pool_conf *conf)
{
	struct urd_spawn_spec *spec = &pool->spec;
	int ret = 0;

	spec->envp = calloc(URD_SPAWN_ENV_MAX + 1, sizeof(char *));
	if (!spec->envp)
		return -ENOMEM;
	for (char **v = environ; v && *v && !ret; v++)
		if (env_passes(conf, *v))
			ret = env_set(spec, strdup(*v));
	if (!ret && spec->home[0] && !conf->clear_env)
		ret = pool_env_user(spec);
	for (u32 i = 0; conf->env && conf->env[i] && !ret; i++)
		ret = env_set(spec, strdup(conf->env[i]));
	if (!ret)
		ret = env_setf(spec, "URD_POOL=%s", conf->name);
	if (!ret)
		ret = env_setf(spec, "URD_PID=%d", getpid());
	if (conf->protocol == URD_PROTOCOL_FOLK) {
		if (!ret)
			ret = env_setf(spec, "FOLK_RUNTIME=pipe");
		if (!ret)
			ret = env_setf(spec, "FOLK_TASK_FD=3");
		return ret ? ret : env_setf(spec, "FOLK_CONTROL_FD=4");
	}
	if (!ret)
		ret = env_setf(spec, "URD_PROTOCOL=%d", URD_PROTOCOL_VERSION);
	if (!ret)
		ret = env_setf(spec, "URD_TASK_IN_FD=3");
	if (!ret)
		ret = env_setf(spec, "URD_TASK_OUT_FD=4");
	if (!ret)
		ret = env_setf(spec, "URD_CONTROL_IN_FD=5");
	return ret ? ret : env_setf(spec, "URD_CONTROL_OUT_FD=6");
}

int urd_pool_init(struct urd_pool *pool, struct urd_core *core, u32 index,
		  const struct urd_pool_conf *conf)
{
	char err[128]; /* conf_check() has told */
	int ret;

	memset(pool, 0, sizeof(*pool));
	pool->core = core;
	pool->index = index;
	pool->conf = *conf;
	/* what is not copied below is not to be looked at later */
	pool->conf.argv = NULL;
	pool->conf.env = NULL;
	pool->conf.env_pass = NULL;
	pool->conf.user = NULL;
	pool->conf.group = NULL;
	pool->want = conf->min_workers;
	pool->scale_timer.kind = URD_TIMER_SCALE;
	pool->memory_timer.kind = URD_TIMER_MEMORY;
	urd_list_init(&pool->open);
	urd_list_init(&pool->queue);
	pool->spec.protocol = conf->protocol;
	pool->spec.argv = copy_strings(conf->argv, 0);
	pool->conf.argv = (const char *const *)pool->spec.argv;
	pool->conf.name = strdup(conf->name);
	if (conf->cwd)
		pool->conf.cwd = strdup(conf->cwd);
	pool->spec.cwd = pool->conf.cwd;
	if (!pool->spec.argv || !pool->conf.name || (conf->cwd && !pool->conf.cwd))
		return -ENOMEM;
	ret = urd_spawn_conf(&pool->spec, conf, err, sizeof(err));
	return ret ? ret : pool_env(pool, conf);
}

void urd_pool_fini(struct urd_pool *pool)
{
	urd_assert(urd_list_empty(&pool->queue));
	free_strings(pool->spec.argv);
	free_strings(pool->spec.envp);
	free((char *)(uintptr_t)pool->conf.name);
	free((char *)(uintptr_t)pool->conf.cwd);
}

/* ---- jobs ---- */

static void pool_enqueue(struct urd_pool *pool, struct urd_job *job, bool front)
{
	u64 due = urd_ns_add(job->arrived_ns, pool->conf.queue_timeout_ns);

	if (pool->want < pool->conf.max_workers && !urd_timer_is_set(&pool->scale_timer))
		urd_timer_set(&pool->core->heap, &pool->scale_timer,
			      urd_ns_add(job->arrived_ns, pool->conf.scale_after_ns));
	if (front)
		urd_list_push_front(&pool->queue, &job->node);
	else
		urd_list_push(&pool->queue, &job->node);
	pool->queued++;
	pool->queued_bytes += job->params_len;
	urd_timer_set(&pool->core->heap, &job->due, urd_min(due, job->deadline_ns));
}

void urd_pool_withdraw(struct urd_pool *pool, struct urd_job *job)
{
	urd_assert(!job->slot && pool->queued > 0);
	urd_list_del(&job->node);
	urd_timer_clear(&pool->core->heap, &job->due);
	pool->queued--;
	pool->queued_bytes -= job->params_len;
}

void urd_pool_requeue(struct urd_pool *pool, struct urd_job *job)
{
	pool->stats.retried++;
	pool_enqueue(pool, job, true);
}

/* When a caller may try again: when the next start is due. */
static u32 pool_retry_ms(const struct urd_pool *pool)
{
	u64 due = URD_NEVER, now = pool->core->now_ns;

	for (u32 i = 0; i < pool->slots_nr; i++)
		if (pool->slots[i].state == SLOT_BACKOFF)
			due = urd_min(due, pool->slots[i].due_ns);
	if (due == URD_NEVER)
		return 0;
	return due > now ? (u32)((due - now) / NSEC_PER_MSEC) + 1 : 1;
}

static void pool_refuse(struct urd_pool *pool, struct urd_job *job, enum urd_code code)
{
	if (code == URD_POOL_FAILED) {
		job->retry_after_ms = pool_retry_ms(pool);
		urd_job_detail(pool->core, job, "%s", pool->last_failure);
	}
	urd_job_answer(pool->core, job, code);
}

static enum urd_code pool_admits(const struct urd_pool *pool, const struct urd_job *job)
{
	/* the frame to the worker may be longer than the one that came */
	if (job->params_len > pool->conf.request_max ||
	    job->params_len + job->method.len + SLOT_ENVELOPE_MAX > URD_REQUEST_MAX)
		return URD_TOO_LARGE;
	if (pool->core->draining)
		return URD_DRAINING;
	if (pool->failed)
		return URD_POOL_FAILED;
	if (job->deadline_ns <= pool->core->now_ns)
		return URD_QUEUE_TIMEOUT;
	return URD_OK;
}

void urd_pool_submit(struct urd_pool *pool, struct urd_job *job)
{
	enum urd_code code = pool_admits(pool, job);

	job->pool = pool;
	if (code != URD_OK) {
		pool_refuse(pool, job, code);
		return;
	}
	if (urd_list_empty(&pool->queue) && !urd_list_empty(&pool->open)) {
		urd_slot_dispatch(urd_list_first(&pool->open, struct urd_slot, open), job);
		return;
	}
	if (pool->queued >= pool->conf.queue_max ||
	    pool->queued_bytes + job->params_len > pool->conf.queue_max_bytes) {
		pool_refuse(pool, job, URD_BUSY);
		return;
	}
	pool_enqueue(pool, job, false);
}

void urd_pool_kick(struct urd_pool *pool)
{
	while (!urd_list_empty(&pool->queue)) {
		struct urd_job *job = urd_list_first(&pool->queue, struct urd_job, node);

		if (job->due.due_ns <= pool->core->now_ns) {
			urd_pool_withdraw(pool, job);
			urd_job_answer(pool->core, job, URD_QUEUE_TIMEOUT);
			continue;
		}
		if (urd_list_empty(&pool->open))
			return;
		urd_pool_withdraw(pool, job);
		urd_slot_dispatch(urd_list_first(&pool->open, struct urd_slot, open), job);
	}
}

/* ---- workers ---- */

u32 urd_pool_ready(const struct urd_pool *pool)
{
	return pool->states[SLOT_IDLE] + pool->states[SLOT_BUSY] + pool->states[SLOT_GRACE];
}

/* Workers that serve, will serve, or are waited for before another try. */
static u32 pool_counted(const struct urd_pool *pool)
{
	return urd_pool_ready(pool) + pool->states[SLOT_SPAWNING] + pool->states[SLOT_BOOTING] +
	       pool->states[SLOT_BACKOFF];
}

void urd_pool_fill(struct urd_pool *pool)
{
	for (u32 i = 0; i < pool->slots_nr; i++) {
		if ((pool->core->draining && !pool->queued) ||
		    pool_counted(pool) >= urd_pool_target(pool))
			return;
		if (pool->slots[i].state == SLOT_VACANT)
			urd_slot_start(&pool->slots[i]);
	}
}

static void pool_fail(struct urd_pool *pool)
{
	struct urd_tags tags = { .pool = pool->conf.name };

	if (!pool->failed)
		pr_err(pool->core->log, &tags, "pool failed: %u starts in a row came to nothing",
		       pool->failures);
	pool->failed = true;
	while (!urd_list_empty(&pool->queue)) {
		struct urd_job *job = urd_list_first(&pool->queue, struct urd_job, node);

		urd_pool_withdraw(pool, job);
		pool_refuse(pool, job, URD_POOL_FAILED);
	}
}

u64 urd_pool_failure(struct urd_pool *pool)
{
	u32 doublings = urd_min(pool->failures / pool->want, POOL_DOUBLINGS_MAX);
	u64 wait = pool->conf.backoff_min_ns << doublings;
	u64 jitter;

	pool->failures++;
	pool->stats.failures++;
	wait = urd_min(wait, pool->conf.backoff_max_ns);
	/* 80 to 120 %, so that the workers of a pool do not come back in step */
	jitter = urd_core_random(pool->core) % (wait * 2 / 5 + 1);
	wait = wait - wait / 5 + jitter;
	if (!urd_pool_ready(pool) && !pool->states[SLOT_RETIRING] &&
	    pool->failures >= urd_max(POOL_FAILURES_MAX, pool->want))
		pool_fail(pool);
	return wait;
}

void urd_pool_booted(struct urd_pool *pool)
{
	struct urd_tags tags = { .pool = pool->conf.name };

	if (pool->failed)
		pr_info(pool->core->log, &tags, "pool recovered");
	pool->failed = false;
}
