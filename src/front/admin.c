// SPDX-License-Identifier: MIT
/*
 * What an admin may ask: how it goes, and that workers come, go or are replaced.
 * Only connections that came in through an admin listener get here; the contract
 * is docs/admin.md.  Everything is answered at once: what takes its time is only
 * begun, and can be watched with the next question.
 */
#include <ctype.h>
#include <msgpack.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urd/client.h>

#include "front/front.h"
#include "wire/mp.h"

#ifndef URD_VERSION
#define URD_VERSION "0.0.0"
#endif

/* Largest answer; room is taken by how much there is to tell, in bytes. */
#define ADMIN_ANSWER_MAX (1u << 20)
#define ADMIN_BASE_BYTES 1024u
#define ADMIN_POOL_BYTES 2048u
#define ADMIN_WORKER_BYTES 256u

#define WHY_NAME(n, t) #n,
static const char *const why_names[] = { URD_WHYS(WHY_NAME) };
#undef WHY_NAME

/* ---- packing ---- */

static void put_str(msgpack_packer *pk, const char *s)
{
	msgpack_pack_str_with_body(pk, s, strlen(s));
}

/* In small letters, like the keys of the configuration. */
static void put_why(msgpack_packer *pk, enum urd_why why)
{
	char name[32];
	size_t n = 0;

	for (const char *p = why_names[why]; *p && n < sizeof(name); p++)
		name[n++] = (char)tolower((unsigned char)*p);
	msgpack_pack_str_with_body(pk, name, n);
}

static void put_uint(msgpack_packer *pk, const char *key, u64 v)
{
	put_str(pk, key);
	msgpack_pack_uint64(pk, v);
}

static void put_bool(msgpack_packer *pk, const char *key, bool v)
{
	put_str(pk, key);
	if (v)
		msgpack_pack_true(pk);
	else
		msgpack_pack_false(pk);
}

static void put_text(msgpack_packer *pk, const char *key, const char *text)
{
	put_str(pk, key);
	put_str(pk, text);
}

/* ---- answering ---- */

static void URD_PRINTF(4, 5)
	refuse(struct urd_core *core, struct urd_job *job, enum urd_code code, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	urd_job_detail(core, job, "%s", text);
	urd_job_answer(core, job, code);
}

/* Begin an answer of at most @bytes: the nil that says there was no error. */
static bool answer_begin(struct urd_core *core, struct urd_job *job, size_t bytes,
			 struct urd_out *out)
{
	bytes = urd_min(bytes, (size_t)ADMIN_ANSWER_MAX - URD_HEADROOM);
	if (urd_arena_get(&core->arena, URD_HEADROOM + bytes, &job->res)) {
		refuse(core, job, URD_BUSY, "there is no memory for the answer now");
		return false;
	}
	*out = (struct urd_out){
		.p = job->res.p + URD_HEADROOM,
		.cap = urd_min(job->res.cap, ADMIN_ANSWER_MAX) - URD_HEADROOM,
	};
	(void)urd_out_write(out, "\xc0", 1);
	return true;
}

static void answer_end(struct urd_core *core, struct urd_job *job, const struct urd_out *out)
{
	if (out->full) {
		urd_arena_put(&core->arena, &job->res);
		refuse(core, job, URD_TOO_LARGE, "the answer would have more than %u bytes",
		       ADMIN_ANSWER_MAX);
		return;
	}
	job->body = out->p;
	job->body_len = out->len;
	urd_job_answer(core, job, URD_OK);
}

static void answer_uint(struct urd_core *core, struct urd_job *job, u64 v)
{
	msgpack_packer pk;
	struct urd_out out;

	if (!answer_begin(core, job, 16, &out))
		return;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_uint64(&pk, v);
	answer_end(core, job, &out);
}

static void answer_true(struct urd_core *core, struct urd_job *job)
{
	struct urd_out out;

	if (!answer_begin(core, job, 16, &out))
		return;
	(void)urd_out_write(&out, "\xc3", 1);
	answer_end(core, job, &out);
}

/* ---- arguments ---- */

/**
 * struct args - arguments of a method that have not been read yet
 * @m: at the next one
 * @n: how many there are
 */
struct args {
	struct urd_mp m;
	u32 n;
};

/* nil is none, a string is one; else a list. False if they are something else. */
static bool args_open(const struct urd_job *job, struct args *a)
{
	struct urd_span s;

	a->m = (struct urd_mp){ job->params, job->params + job->params_len };
	a->n = 0;
	if (urd_mp_is_nil(&a->m))
		return true;
	if (urd_mp_array(&a->m, &a->n) == 0)
		return true;
	a->n = 1;
	return urd_mp_str(&(struct urd_mp){ a->m.p, a->m.end }, &s) == 0;
}

/* The pool that the next argument names; NULL if that was answered. */
static struct urd_pool *args_pool(struct urd_core *core, struct urd_job *job, struct args *a)
{
	struct urd_pool *pool;
	struct urd_span s;

	if (urd_mp_str(&a->m, &s)) {
		refuse(core, job, URD_BAD_REQUEST, "the name of a pool must be a string");
		return NULL;
	}
	pool = urd_core_pool(core, s);
	if (!pool)
		refuse(core, job, URD_NO_POOL, "there is no pool \"%.*s\"",
		       (int)urd_min(s.len, 64u), (const char *)s.p);
	return pool;
}

static bool args_uint(struct urd_core *core, struct urd_job *job, struct args *a, const char *what,
		      u64 *v)
{
	if (!urd_mp_uint(&a->m, v))
		return true;
	refuse(core, job, URD_BAD_REQUEST, "%s must be a whole number and not negative", what);
	return false;
}

/* Workers neither come nor go by order while urd stops. */
static bool is_draining(struct urd_core *core, struct urd_job *job)
{
	if (core->draining)
		urd_job_answer(core, job, URD_DRAINING);
	return core->draining;
}

/* Leave a trace of who asked for what. */
static void URD_PRINTF(3, 4)
	tell(struct urd_conn *conn, const struct urd_pool *pool, const char *fmt, ...)
{
	struct urd_tags tags = { .pool = pool ? pool->conf.name : NULL };
	struct ucred peer = { .pid = 0, .uid = (uid_t)-1 };
	socklen_t len = sizeof(peer);
	char text[128];
	va_list ap;

	(void)getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pr_info(conn->front->core->log, &tags, "admin: %s by_pid=%d by_uid=%d", text, peer.pid,
		(int)peer.uid);
}

/* ---- urd.status ---- */

static u32 pool_inflight(const struct urd_pool *pool)
{
	u32 n = 0;

	for (u32 i = 0; i < pool->slots_nr; i++)
		n += pool->slots[i].jobs_nr;
	return n;
}

static void pack_pool(msgpack_packer *pk, const struct urd_pool *pool)
{
	const struct urd_pool_stats *stats = &pool->stats;

	msgpack_pack_map(pk, 19);
	put_text(pk, "name", pool->conf.name);
	put_text(pk, "protocol", pool->conf.protocol == URD_PROTOCOL_FOLK ? "folk" : "urd");
	put_uint(pk, "want", pool->want);
	put_uint(pk, "min_workers", pool->conf.min_workers);
	put_uint(pk, "max_workers", pool->conf.max_workers);
	put_uint(pk, "ready", urd_pool_ready(pool));
	put_bool(pk, "failed", pool->failed);
	put_str(pk, "states");
	msgpack_pack_map(pk, SLOT_NR);
	for (u32 i = 0; i < SLOT_NR; i++)
		put_uint(pk, urd_slot_state_name((enum urd_slot_state)i), pool->states[i]);
	put_uint(pk, "queued", pool->queued);
	put_uint(pk, "queued_bytes", pool->queued_bytes);
	put_uint(pk, "inflight", pool_inflight(pool));
	put_uint(pk, "spawns", stats->spawns);
	put_uint(pk, "exits", stats->exits);
	put_str(pk, "exits_by");
	msgpack_pack_map(pk, URD_WHY_NR);
	for (u32 i = 0; i < URD_WHY_NR; i++) {
		put_why(pk, (enum urd_why)i);
		msgpack_pack_uint64(pk, stats->exits_by[i]);
	}
	put_uint(pk, "failures", stats->failures);
	put_uint(pk, "late", stats->late);
	put_uint(pk, "retried", stats->retried);
	put_uint(pk, "overruns", stats->overruns);
	put_str(pk, "outcomes");
	msgpack_pack_map(pk, URD_CODE_NR);
	for (u32 i = 0; i < URD_CODE_NR; i++)
		put_uint(pk, urd_code_name((int)i), stats->outcomes[i]);
}

static void pack_ring(msgpack_packer *pk, const struct urd_ring_stats *stats)
{
	put_str(pk, "ring");
	msgpack_pack_map(pk, 5);
	put_uint(pk, "enters", stats->turns + stats->submits);
	put_uint(pk, "sqes", stats->sqes);
	put_uint(pk, "cqes", stats->cqes);
	put_uint(pk, "inlined", stats->inlined);
	put_uint(pk, "overflows", stats->overflows);
}

static void admin_status(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	const struct urd_front *front = conn->front;
	struct urd_core *core = front->core;
	msgpack_packer pk;
	struct urd_out out;

	(void)a;
	if (!answer_begin(core, job, ADMIN_BASE_BYTES + (size_t)core->pools_nr * ADMIN_POOL_BYTES,
			  &out))
		return;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_map(&pk, 9);
	put_text(&pk, "version", URD_VERSION);
	put_uint(&pk, "pid", (u64)getpid());
	put_uint(&pk, "uptime_ms", (core->now_ns - front->started_ns) / NSEC_PER_MSEC);
	put_bool(&pk, "draining", core->draining);
	put_uint(&pk, "connections", front->conns_nr - front->admins_nr);
	put_uint(&pk, "refused", front->refused);
	put_str(&pk, "memory");
	msgpack_pack_map(&pk, 3);
	put_uint(&pk, "used", core->arena.used);
	put_uint(&pk, "max_used", core->arena.used_max);
	put_uint(&pk, "size", core->arena.size);
	pack_ring(&pk, urd_ring_stats(core->ring));
	put_str(&pk, "pools");
	msgpack_pack_array(&pk, core->pools_nr);
	for (u32 i = 0; i < core->pools_nr; i++)
		pack_pool(&pk, &core->pools[i]);
	answer_end(core, job, &out);
}

/* ---- urd.workers ---- */

/* Why it is to leave, or is leaving. */
static enum urd_why slot_leaves(const struct urd_slot *slot)
{
	if (slot->leave)
		return slot->leave;
	return slot->state >= SLOT_RETIRING && slot->state <= SLOT_KILLING ? slot->why :
									     URD_WHY_NONE;
}

static void pack_worker(msgpack_packer *pk, const struct urd_slot *slot)
{
	enum urd_why leaves = slot_leaves(slot);
	bool lives = slot->child.pid > 0;

	msgpack_pack_map(pk, 10);
	put_text(pk, "pool", slot->pool->conf.name);
	put_uint(pk, "worker", slot->worker);
	put_str(pk, "pid");
	if (lives)
		msgpack_pack_uint64(pk, (u64)slot->child.pid);
	else
		msgpack_pack_nil(pk);
	put_text(pk, "state", urd_slot_state_name((enum urd_slot_state)slot->state));
	put_uint(pk, "age_ms", lives ? (slot->core->now_ns - slot->born_ns) / NSEC_PER_MSEC : 0);
	put_uint(pk, "served", slot->served);
	put_uint(pk, "given", slot->given);
	put_uint(pk, "inflight", slot->jobs_nr);
	put_uint(pk, "rss", lives ? urd_child_rss(&slot->child) : 0);
	put_str(pk, "leaving");
	if (leaves)
		put_why(pk, leaves);
	else
		msgpack_pack_nil(pk);
}

static bool slot_is_listed(const struct urd_slot *slot, const struct urd_pool *only)
{
	return slot->state != SLOT_VACANT && (!only || slot->pool == only);
}

static void admin_workers(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	struct urd_core *core = conn->front->core;
	struct urd_pool *only = NULL;
	msgpack_packer pk;
	struct urd_out out;
	u32 n = 0;

	if (a->n) {
		only = args_pool(core, job, a);
		if (!only)
			return;
	}
	for (u32 i = 0; i < core->slots_nr; i++)
		n += slot_is_listed(&core->slots[i], only);
	if (!answer_begin(core, job, ADMIN_BASE_BYTES + (size_t)n * ADMIN_WORKER_BYTES, &out))
		return;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_array(&pk, n);
	for (u32 i = 0; i < core->slots_nr && !out.full; i++)
		if (slot_is_listed(&core->slots[i], only))
			pack_worker(&pk, &core->slots[i]);
	answer_end(core, job, &out);
}

/* ---- what changes something ---- */

static void admin_scale(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	struct urd_core *core = conn->front->core;
	struct urd_pool *pool = args_pool(core, job, a);
	u64 n;

	if (!pool || !args_uint(core, job, a, "the number of workers", &n))
		return;
	if (!n) {
		refuse(core, job, URD_BAD_REQUEST, "a pool has at least 1 worker");
		return;
	}
	if (is_draining(core, job))
		return;
	tell(conn, pool, "scale to %llu workers", (unsigned long long)n);
	answer_uint(core, job, urd_pool_scale(pool, (u32)urd_min(n, (u64)UINT32_MAX)));
}

static void admin_reload(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	struct urd_core *core = conn->front->core;
	struct urd_pool *pool = NULL;
	u64 n = 0;

	if (a->n) {
		pool = args_pool(core, job, a);
		if (!pool)
			return;
	}
	if (is_draining(core, job))
		return;
	tell(conn, pool, "reload");
	for (u32 i = 0; i < core->pools_nr; i++)
		if (!pool || pool == &core->pools[i])
			n += urd_pool_reload(&core->pools[i]);
	answer_uint(core, job, n);
}

/* A living worker by its process number; NULL if there is none. */
static struct urd_slot *worker_find(struct urd_core *core, const struct urd_pool *pool, u64 pid)
{
	for (u32 i = 0; i < core->slots_nr; i++) {
		struct urd_slot *slot = &core->slots[i];

		if (slot->child.pid > 0 && (u64)slot->child.pid == pid && !slot->exited &&
		    (!pool || slot->pool == pool))
			return slot;
	}
	return NULL;
}

static void admin_recycle(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	struct urd_core *core = conn->front->core;
	struct urd_pool *pool = args_pool(core, job, a);
	struct urd_slot *slot;
	u64 pid;

	if (!pool)
		return;
	if (a->n == 1) {
		if (is_draining(core, job))
			return;
		tell(conn, pool, "recycle all workers");
		answer_uint(core, job, urd_pool_leave_all(pool, URD_WHY_FORCED));
		return;
	}
	if (!args_uint(core, job, a, "the pid", &pid))
		return;
	slot = worker_find(core, pool, pid);
	if (!slot) {
		refuse(core, job, URD_BAD_REQUEST, "pool \"%s\" has no worker with pid %llu",
		       pool->conf.name, (unsigned long long)pid);
		return;
	}
	if (is_draining(core, job))
		return;
	tell(conn, pool, "recycle pid %llu", (unsigned long long)pid);
	pid = slot->state <= SLOT_GRACE;
	urd_pool_leave(slot, URD_WHY_FORCED);
	answer_uint(core, job, pid);
}

static void admin_kill(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	struct urd_core *core = conn->front->core;
	struct urd_slot *slot;
	u64 pid;

	if (!args_uint(core, job, a, "the pid", &pid))
		return;
	slot = worker_find(core, NULL, pid);
	if (!slot) {
		refuse(core, job, URD_BAD_REQUEST, "there is no worker with pid %llu",
		       (unsigned long long)pid);
		return;
	}
	tell(conn, slot->pool, "kill pid %llu", (unsigned long long)pid);
	urd_slot_kill(slot, URD_WHY_FORCED);
	answer_true(core, job);
}

static void admin_drain(struct urd_conn *conn, struct urd_job *job, struct args *a)
{
	struct urd_front *front = conn->front;
	u64 ns = front->drain_timeout_ns;
	u64 ms;

	if (a->n) {
		if (!args_uint(front->core, job, a, "the time in ms", &ms))
			return;
		ns = ms < URD_NEVER / NSEC_PER_MSEC ? ms * NSEC_PER_MSEC : URD_NEVER;
	}
	tell(conn, NULL, "drain");
	front->drain(front->drain_arg, ns);
	answer_true(front->core, job);
}

/* ---- which is which ---- */

static const struct method {
	const char *name;
	void (*run)(struct urd_conn *conn, struct urd_job *job, struct args *a);
	u32 args_min;
	u32 args_max;
	const char *args; /* for who got them wrong */
} methods[] = {
	{ "urd.status", admin_status, 0, 0, "nil" },
	{ "urd.workers", admin_workers, 0, 1, "nil or [pool]" },
	{ "urd.scale", admin_scale, 2, 2, "[pool, number]" },
	{ "urd.reload", admin_reload, 0, 1, "nil or [pool]" },
	{ "urd.recycle", admin_recycle, 1, 2, "[pool] or [pool, pid]" },
	{ "urd.kill", admin_kill, 1, 1, "[pid]" },
	{ "urd.drain", admin_drain, 0, 1, "nil or [timeout_ms]" },
};

bool admin_request(struct urd_conn *conn, struct urd_job *job)
{
	struct args a;

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		const struct method *m = &methods[i];

		if (!urd_span_is(job->method, m->name))
			continue;
		if (!args_open(job, &a) || a.n < m->args_min || a.n > m->args_max)
			refuse(conn->front->core, job, URD_BAD_REQUEST, "%s takes %s", m->name,
			       m->args);
		else
			m->run(conn, job, &a);
		return true;
	}
	return false;
}
