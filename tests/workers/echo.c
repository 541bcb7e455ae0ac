// SPDX-License-Identifier: MIT
/*
 * The test worker in C.  The same methods exist in Python, PHP and Node; what
 * each has to do is said in tests/e2e/sdk_check.py by checking it.
 */
#include <urd/worker.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <msgpack/pack.h>

#include "wire/mp.h"
#include "wire/rpc.h"

extern char **environ;

static struct urd_mp params_cursor(const struct urd_req *req)
{
	const u8 *p = urd_req_params(req);

	return (struct urd_mp){ p, p + urd_req_params_len(req) };
}

/* The number under @key of a map; @fallback if there is none. */
static u64 params_number(const struct urd_req *req, const char *key, u64 fallback)
{
	struct urd_mp m = params_cursor(req);
	struct urd_mp v;
	u64 n;

	return !urd_mp_find(&m, key, &v) && !urd_mp_uint(&v, &n) ? n : fallback;
}

static int reply_text(struct urd_req *req, const char *text)
{
	u8 buf[128];
	struct urd_out out = { .p = buf, .cap = sizeof(buf) };
	msgpack_packer pk;

	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_str_with_body(&pk, text, strlen(text));
	return urd_req_reply(req, buf, out.len);
}

static size_t number_pack(u8 *buf, size_t cap, u64 n)
{
	struct urd_out out = { .p = buf, .cap = (u32)cap };
	msgpack_packer pk;

	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_uint64(&pk, n);
	return out.len;
}

static int reply_number(struct urd_req *req, u64 n)
{
	u8 buf[16];

	return urd_req_reply(req, buf, number_pack(buf, sizeof(buf), n));
}

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / NSEC_PER_MSEC;
}

static int echo(struct urd_req *req, void *arg)
{
	(void)arg;
	return urd_req_reply(req, urd_req_params(req), urd_req_params_len(req));
}

static int sleep_ms(struct urd_req *req, void *arg)
{
	u64 end = now_ms() + params_number(req, "ms", 0);
	u64 now;

	(void)arg;
	while ((now = now_ms()) < end) {
		if (urd_req_cancelled(req))
			return reply_text(req, "cancelled");
		poll(NULL, 0, (int)urd_min(end - now, (u64)5));
	}
	return reply_text(req, "slept");
}

/* "retry" and "fatal" have no form of their own in C: a code must do. */
static int fail(struct urd_req *req, void *arg)
{
	struct urd_mp m = params_cursor(req);
	struct urd_span s;

	(void)arg;
	if (!urd_mp_str(&m, &s)) {
		if (urd_span_is(s, "retry"))
			return urd_req_fail(req, 7, "try again");
		if (urd_span_is(s, "fatal"))
			return urd_req_fail(req, 8, "give up");
		if (urd_span_is(s, "errno"))
			return -EDOM;
	}
	return urd_req_fail(req, -32603, "it failed");
}

static int die(struct urd_req *req, void *arg)
{
	u64 status = params_number(req, "exit", UINT64_MAX);

	(void)arg;
	if (status != UINT64_MAX)
		_exit((int)status);
	return kill(getpid(), SIGKILL);
}

static int noise(struct urd_req *req, void *arg)
{
	int i;

	(void)req;
	(void)arg;
	for (i = 0; i < 1000; i++) {
		puts("noise on stdout");
		fputs("noise on stderr\n", stderr);
	}
	return 0;
}

static int pid(struct urd_req *req, void *arg)
{
	(void)arg;
	return reply_number(req, (u64)getpid());
}

static int retire(struct urd_req *req, void *arg)
{
	(void)req;
	return urd_worker_retire(arg);
}

static int progress(struct urd_req *req, void *arg)
{
	struct urd_mp m = params_cursor(req);
	u8 buf[16];
	u64 n;
	u64 i;
	int ret;

	(void)arg;
	if (urd_mp_uint(&m, &n))
		return -EINVAL;
	for (i = 0; i < n; i++) {
		ret = urd_req_progress(req, buf, number_pack(buf, sizeof(buf), i));
		if (ret)
			return ret;
	}
	return reply_number(req, n);
}

static int beat(struct urd_req *req, void *arg)
{
	(void)req;
	return urd_worker_heartbeat(arg);
}

static void pack_key(msgpack_packer *pk, const char *key)
{
	msgpack_pack_str_with_body(pk, key, strlen(key));
}

static int meta(struct urd_req *req, void *arg)
{
	const char *trace = urd_req_trace(req);
	u8 buf[512];
	struct urd_out out = { .p = buf, .cap = sizeof(buf) };
	msgpack_packer pk;

	(void)arg;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_map(&pk, 4);
	pack_key(&pk, "attempt");
	msgpack_pack_unsigned_int(&pk, urd_req_attempt(req));
	pack_key(&pk, "trace");
	if (trace)
		pack_key(&pk, trace);
	else
		msgpack_pack_nil(&pk);
	pack_key(&pk, "stream");
	if (urd_req_wants_stream(req))
		msgpack_pack_true(&pk);
	else
		msgpack_pack_false(&pk);
	pack_key(&pk, "deadline");
	if (urd_req_deadline_ms(req) < 0)
		msgpack_pack_nil(&pk);
	else
		msgpack_pack_int64(&pk, urd_req_deadline_ms(req));
	return urd_req_reply(req, buf, out.len);
}

/* Without a stream it fails: C has no list to collect chunks in. */
static int stream(struct urd_req *req, void *arg)
{
	struct urd_mp m = params_cursor(req);
	u8 buf[16];
	u64 n;
	u64 i;
	int ret;

	(void)arg;
	if (urd_mp_uint(&m, &n))
		return -EINVAL;
	for (i = 0; i < n; i++) {
		ret = urd_req_chunk(req, buf, number_pack(buf, sizeof(buf), i));
		if (ret)
			return ret;
	}
	return 0;
}

static int spawn(struct urd_req *req, void *arg)
{
	static char name[] = "sleep";
	static char seconds[] = "60";
	char *argv[] = { name, seconds, NULL };
	posix_spawn_file_actions_t actions;
	pid_t child;
	int ret;
	int fd;

	(void)arg;
	posix_spawn_file_actions_init(&actions);
	for (fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", 2, 0);
	ret = posix_spawnp(&child, name, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return ret ? -ret : reply_number(req, (u64)child);
}

int main(void)
{
	static const struct {
		const char *method;
		urd_handler_fn fn;
	} table[] = {
		{ "echo", echo },     { "sleep", sleep_ms },	{ "fail", fail },
		{ "die", die },	      { "noise", noise },	{ "pid", pid },
		{ "retire", retire }, { "progress", progress }, { "beat", beat },
		{ "meta", meta },     { "stream", stream },	{ "spawn", spawn },
	};
	struct urd_worker *w = urd_worker_new(NULL);
	size_t i;

	for (i = 0; w && i < ARRAY_SIZE(table); i++) {
		if (urd_worker_on(w, table[i].method, table[i].fn, w))
			return 1;
	}
	return urd_worker_run(w);
}
