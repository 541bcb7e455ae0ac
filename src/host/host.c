// SPDX-License-Identifier: MIT
/*
 * The public calls of urd.h: open, turn, drain, close.  Requests of this process
 * are in call.c.
 */
#include "host/host.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ring/probe.h"

/* Descriptors of a slot, and of everything else. */
#define FDS_PER_SLOT 7u
#define FDS_OTHER 64u
/* Open files that a worker needs to start at all, with some to spare. */
#define NOFILE_MIN 16u

static int URD_PRINTF(4, 5) fail(char *err, size_t len, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, len, fmt, ap);
	va_end(ap);
	return ret;
}

static int pool_check(const struct urd_pool_conf *p, char *err, size_t len)
{
	if (!p->name || !p->name[0] || strlen(p->name) > 64)
		return fail(err, len, -EINVAL, "pool: the name must have 1 to 64 characters");
	if (p->name[strspn(p->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-")])
		return fail(err, len, -EINVAL,
			    "pool %s: the name may have letters, digits, _ and -", p->name);
	if (!p->argv || !p->argv[0])
		return fail(err, len, -EINVAL, "pool %s: no command", p->name);
	if (p->min_workers < 1 || p->max_workers > 4096 || p->min_workers > p->max_workers)
		return fail(err, len, -EINVAL,
			    "pool %s: 1 <= min_workers <= max_workers <= 4096 must hold", p->name);
	if (p->queue_max < 1 || p->queue_max > 1u << 20)
		return fail(err, len, -EINVAL, "pool %s: queue_max must be 1 to 1048576", p->name);
	if (p->request_max < 1 || p->request_max > URD_REQUEST_MAX)
		return fail(err, len, -EINVAL, "pool %s: max_request must be 1 to 16 MiB", p->name);
	if (p->response_max < 1 || p->response_max > URD_RESPONSE_MAX)
		return fail(err, len, -EINVAL, "pool %s: max_response must be 1 to 64 MiB",
			    p->name);
	if (!p->backoff_min_ns || p->backoff_min_ns > p->backoff_max_ns ||
	    p->backoff_max_ns > 24 * 3600 * NSEC_PER_SEC)
		return fail(err, len, -EINVAL,
			    "pool %s: 0 < backoff_min <= backoff_max <= 24h must hold", p->name);
	return 0;
}

static int isolation_check(const struct urd_pool_conf *p, char *err, size_t len)
{
	struct urd_spawn_spec spec;
	char why[128];

	if (p->umask != URD_UNSET && (p->umask < 0 || p->umask > 0777))
		return fail(err, len, -EINVAL, "pool %s: umask must be 0 to 0777", p->name);
	if (p->nice != URD_UNSET && (p->nice < -20 || p->nice > 19))
		return fail(err, len, -EINVAL, "pool %s: nice must be -20 to 19", p->name);
	if (p->oom_score_adj != URD_UNSET && (p->oom_score_adj < -1000 || p->oom_score_adj > 1000))
		return fail(err, len, -EINVAL, "pool %s: oom_score_adj must be -1000 to 1000",
			    p->name);
	if (p->rlimit_nofile < NOFILE_MIN)
		return fail(err, len, -EINVAL, "pool %s: rlimit_nofile must be at least %u",
			    p->name, NOFILE_MIN);
	if (urd_spawn_conf(&spec, p, why, sizeof(why)))
		return fail(err, len, -EINVAL, "pool %s: %s", p->name, why);
	return 0;
}

int conf_check(const struct urd_conf *conf, char *err, size_t len)
{
	int ret = 0;

	if (conf->pools_nr < 1 || conf->pools_nr > 256)
		return fail(err, len, -EINVAL, "there must be 1 to 256 pools");
	if (conf->listen_nr > 64)
		return fail(err, len, -EINVAL, "there may be at most 64 listeners");
	if (conf->conns_max > 65536)
		return fail(err, len, -EINVAL, "conns_max must be at most 65536");
	if (conf->memory < 16u << 20)
		return fail(err, len, -EINVAL, "memory must be at least 16 MiB");
	if (conf->log_line_max < 256 || conf->log_line_max > 16384)
		return fail(err, len, -EINVAL, "worker_line_max must be 256 to 16384 bytes");
	for (u32 i = 0; i < conf->pools_nr && !ret; i++) {
		ret = pool_check(&conf->pools[i], err, len);
		if (!ret)
			ret = isolation_check(&conf->pools[i], err, len);
		for (u32 k = 0; k < i && !ret; k++)
			if (!strcmp(conf->pools[i].name, conf->pools[k].name))
				ret = fail(err, len, -EINVAL, "pool %s: there are two of that name",
					   conf->pools[i].name);
	}
	return ret;
}

/* 0 workers: one per CPU that we may use; 0 queue_max: 64 per worker. */
static void pool_defaults(struct urd_pool_conf *p)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	u32 cpus = n > 0 ? (u32)n : 1;

	if (!p->min_workers && p->max_workers)
		p->min_workers = urd_min(p->max_workers, cpus);
	else if (!p->min_workers)
		p->min_workers = cpus;
	if (!p->max_workers)
		p->max_workers = p->min_workers;
	if (!p->queue_max)
		p->queue_max = 64 * p->max_workers;
}

/* Each worker takes seven descriptors: raise the soft limit to what is needed. */
static int raise_nofile(const struct urd_conf *conf, struct urd_log *log)
{
	struct rlimit rl;
	rlim_t need = conf->conns_max + conf->listen_nr + FDS_OTHER;

	for (u32 i = 0; i < conf->pools_nr; i++)
		need += (rlim_t)urd_pool_slots(&conf->pools[i]) * FDS_PER_SLOT;
	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return -errno;
	if (rl.rlim_cur >= need)
		return 0;
	rl.rlim_cur = urd_min(need, rl.rlim_max);
	if (rl.rlim_cur < need)
		pr_warn(log, NULL, "open files: %llu may be needed, the hard limit is %llu",
			(unsigned long long)need, (unsigned long long)rl.rlim_max);
	return setrlimit(RLIMIT_NOFILE, &rl) < 0 ? -errno : 0;
}

/* An admin wants it to end. */
static void front_drain(void *arg, u64 timeout_ns)
{
	host_drain(arg, timeout_ns);
}

int host_init(struct urd *urd, const struct urd_conf *conf, char *err, size_t len)
{
	struct urd_core_conf cc = {
		.conf = conf,
		.ops_extra = urd_front_ops(conf) + URD_HOST_WATCH_MAX + 1,
		.jobs_extra = urd_front_jobs(conf),
		.timers_extra = conf->listen_nr + 1,
	};
	int ret;

	urd->owner = pthread_self();
	ret = urd_core_init(&urd->core, &cc, urd->log);
	if (ret) {
		urd_probe_explain(ret, err, len);
		return ret;
	}
	/* after the pools have seen what it was: workers keep that */
	(void)raise_nofile(conf, urd->log);
	ret = urd_front_init(&urd->front, &urd->core, conf, err, len);
	if (ret)
		goto out_core;
	urd->front.drain = front_drain;
	urd->front.drain_arg = urd;
	for (u32 i = 0; i < URD_HOST_WATCH_MAX; i++)
		urd_op_init(urd->core.ring, &urd->watch[i].op, URD_OP_SIGNAL, (u8)i);
	urd_op_init(urd->core.ring, &urd->doorbell_op, URD_OP_DOORBELL, 0);
	urd->drain_timer.kind = URD_TIMER_HOST;
	ret = urd_core_start(&urd->core);
	if (ret) {
		fail(err, len, ret, "can't start the spawner: %s", strerror(-ret));
		goto out_core;
	}
	urd_front_start(&urd->front);
	return 0;

out_core:
	urd_core_fini(&urd->core); /* first: it looks at every op once more */
	urd_front_fini(&urd->front);
	return ret;
}

void host_fini(struct urd *urd)
{
	urd_op_cancel(urd->core.ring, &urd->doorbell_op);
	while (!urd_op_is_idle(&urd->doorbell_op))
		host_turn(urd, 0);
	urd_core_fini(&urd->core); /* first: it looks at every op once more */
	urd_front_fini(&urd->front);
}

static void *host_thread(void *arg)
{
	struct urd *urd = arg;
	int ret = host_init(urd, urd->starting, urd->err, urd->err_len);

	if (!ret)
		urd_op_read(urd->core.ring, &urd->doorbell_op, urd->doorbell, &urd->doorbell_count,
			    sizeof(urd->doorbell_count), URD_NEVER);
	pthread_mutex_lock(&urd->lock);
	urd->start_ret = ret;
	urd->starting = NULL;
	pthread_cond_broadcast(&urd->drained_cond);
	pthread_mutex_unlock(&urd->lock);
	if (ret)
		return NULL;
	while (host_turn(urd, URD_NEVER))
		;
	pthread_mutex_lock(&urd->lock);
	urd->over = true;
	pthread_cond_broadcast(&urd->drained_cond);
	pthread_mutex_unlock(&urd->lock);
	host_doorbell(urd); /* what was handed in meanwhile is refused */
	host_fini(urd);
	return NULL;
}

static int host_start_thread(struct urd *urd, const struct urd_conf *conf, char *err, size_t len)
{
	pthread_t thread;
	sigset_t all, old;
	int ret;

	urd->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (urd->doorbell < 0)
		return fail(err, len, -errno, "eventfd: %s", strerror(errno));
	urd->starting = conf;
	urd->err = err;
	urd->err_len = len;
	/* signals are the program's business, and a dead worker's pipe must not raise one */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&thread, NULL, host_thread, urd);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return fail(err, len, ret, "can't start a thread: %s", strerror(-ret));
	pthread_mutex_lock(&urd->lock);
	while (urd->starting)
		pthread_cond_wait(&urd->drained_cond, &urd->lock);
	ret = urd->start_ret;
	pthread_mutex_unlock(&urd->lock);
	urd->owner = thread;
	if (ret)
		pthread_join(thread, NULL);
	return ret;
}

URD_API int urd_open(const struct urd_conf *conf, unsigned int flags, struct urd **urdp, char *err,
		     size_t len)
{
	struct urd_pool_conf *pools;
	struct urd_conf c = *conf;
	struct urd *urd;
	int ret;

	pools = calloc(conf->pools_nr + 1u, sizeof(*pools));
	urd = calloc(1, sizeof(*urd));
	ret = -ENOMEM;
	if (!pools || !urd)
		goto out_free;
	for (u32 i = 0; i < conf->pools_nr; i++) {
		pools[i] = conf->pools[i];
		pool_defaults(&pools[i]);
	}
	c.pools = pools;
	ret = conf_check(&c, err, len);
	if (ret)
		goto out_free;
	urd->flags = flags;
	urd->doorbell = -1;
	urd_list_init(&urd->inbox);
	pthread_mutex_init(&urd->lock, NULL);
	pthread_cond_init(&urd->drained_cond, NULL);
	urd->ready = calloc(conf->pools_nr, sizeof(*urd->ready));
	ret = urd->ready ? urd_log_open(c.log_level, c.log_format, c.log_fd, &urd->log) : -ENOMEM;
	if (ret) {
		fail(err, len, ret, "can't start the log: %s", strerror(-ret));
		goto out_destroy;
	}
	ret = flags & URD_OPEN_LOOP ? host_init(urd, &c, err, len) :
				      host_start_thread(urd, &c, err, len);
	if (ret)
		goto out_log;
	free(pools);
	*urdp = urd;
	return 0;

out_log:
	urd_log_close(urd->log);
	if (urd->doorbell >= 0)
		close(urd->doorbell);
out_destroy:
	pthread_cond_destroy(&urd->drained_cond);
	pthread_mutex_destroy(&urd->lock);
	free(urd->ready);
out_free:
	free(urd);
	free(pools);
	return ret;
}

URD_API int urd_on_readable(struct urd *urd, int fd, urd_readable_fn fn, void *arg)
{
	struct urd_watch *w;

	if (urd->watch_nr == URD_HOST_WATCH_MAX)
		return -ENOSPC;
	w = &urd->watch[urd->watch_nr++];
	w->fd = fd;
	w->fn = fn;
	w->arg = arg;
	urd_op_poll(urd->core.ring, &w->op, fd, POLLIN, URD_NEVER);
	return 0;
}

URD_API void urd_run(struct urd *urd)
{
	while (host_turn(urd, URD_NEVER))
		;
}

URD_API int urd_fd(const struct urd *urd)
{
	return urd_ring_fd(urd->core.ring);
}

URD_API uint64_t urd_timeout(const struct urd *urd)
{
	u64 due = urd_heap_next(&urd->core.heap);
	u64 now = urd_ring_now(urd->core.ring);

	if (due == URD_NEVER)
		return URD_OFF;
	return due > now ? due - now : 0;
}

URD_API int urd_turn(struct urd *urd, uint64_t timeout_ns)
{
	struct urd_ring *ring = urd->core.ring;
	u64 until = timeout_ns ? urd_ns_add(urd_ring_now(ring), timeout_ns) : 0;
	bool more = host_turn(urd, until);

	/* the caller will poll our descriptor: nothing may be left for the next turn */
	for (;;) {
		urd_ring_flush(ring);
		if (!more || !urd_ring_is_pending(ring))
			return more;
		more = host_turn(urd, 0);
	}
}

URD_API int urd_drain(struct urd *urd, uint64_t timeout_ns)
{
	if (urd->flags & URD_OPEN_LOOP) {
		host_drain(urd, timeout_ns);
		return 0;
	}
	pthread_mutex_lock(&urd->lock);
	if (!urd->wants_drain || timeout_ns < urd->wants_drain_ns)
		urd->wants_drain_ns = timeout_ns;
	urd->wants_drain = true;
	(void)eventfd_write(urd->doorbell, 1);
	while (!urd->over)
		pthread_cond_wait(&urd->drained_cond, &urd->lock);
	pthread_mutex_unlock(&urd->lock);
	return 0;
}

/* Whether and where workers may be ordered to come or go: 0 and @pool, or why not. */
static int host_order(struct urd *urd, const char *name, struct urd_pool **pool)
{
	if (!host_is_owner(urd))
		return -EPERM;
	if (urd->draining)
		return -ESHUTDOWN;
	if (!name)
		return 0;
	*pool = urd_core_pool(&urd->core, (struct urd_span){ (const u8 *)name, (u32)strlen(name) });
	return *pool ? 0 : -ENOENT;
}

URD_API int urd_scale(struct urd *urd, const char *name, uint32_t n)
{
	struct urd_pool *pool = urd->front.fallback;
	int ret = host_order(urd, name, &pool);

	if (ret)
		return ret;
	return n ? (int)urd_pool_scale(pool, n) : -EINVAL;
}

URD_API int urd_reload(struct urd *urd, const char *name)
{
	struct urd_pool *pool = NULL;
	int n = 0;
	int ret = host_order(urd, name, &pool);

	if (ret)
		return ret;
	for (u32 i = 0; i < urd->core.pools_nr; i++)
		if (!pool || pool == &urd->core.pools[i])
			n += (int)urd_pool_reload(&urd->core.pools[i]);
	return n;
}

URD_API void urd_close(struct urd *urd)
{
	if (!urd)
		return;
	if (urd->flags & URD_OPEN_LOOP) {
		if (!urd->drained) {
			host_drain(urd, 0);
			urd_run(urd);
		}
		host_fini(urd);
	} else {
		urd_drain(urd, 0);
		pthread_join(urd->owner, NULL);
		close(urd->doorbell);
	}
	urd_log_close(urd->log);
	pthread_cond_destroy(&urd->drained_cond);
	pthread_mutex_destroy(&urd->lock);
	free(urd->ready);
	free(urd);
}

URD_API uint32_t urd_ready(const struct urd *urd, const char *pool)
{
	u32 n = 0;

	for (u32 i = 0; i < urd->core.pools_nr; i++)
		if (!pool || !strcmp(pool, urd->core.pools[i].conf.name))
			n += atomic_load_explicit(&urd->ready[i], memory_order_relaxed);
	return n;
}

#ifndef URD_VERSION
#define URD_VERSION "0.0.0"
#endif

URD_API const char *urd_version(void)
{
	return URD_VERSION;
}
