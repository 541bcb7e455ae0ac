// SPDX-License-Identifier: MIT
/*
 * The library: pools inside of this process, with a thread of liburd's own and
 * with a ring that the caller turns.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <urd/urd.h>

#include "lib/daemon.h"

TestSuite(api, .timeout = 120);

static const char *const bad_argv[] = { BAD, NULL };
static const char *const never_argv[] = { BAD, "never", NULL };
static const char *const exit_argv[] = { BAD, "exit", "3", NULL };

/* A pool of bad workers, and nothing logged. */
static struct urd_pool_conf pool_conf(const char *name, u32 workers)
{
	struct urd_pool_conf pool = URD_POOL_CONF_INIT;

	pool.name = name;
	pool.argv = bad_argv;
	pool.min_workers = workers;
	pool.max_workers = workers;
	pool.queue_max = 1000;
	pool.backoff_min_ns = 10 * URD_MSEC;
	return pool;
}

static int open_pools(const struct urd_pool_conf *pools, u32 nr, unsigned int flags,
		      struct urd **urd, char *err, size_t err_len)
{
	struct urd_conf conf = URD_CONF_INIT;

	conf.pools = pools;
	conf.pools_nr = nr;
	conf.log_fd = -1;
	return urd_open(&conf, flags, urd, err, err_len);
}

static struct urd *must_open(const struct urd_pool_conf *pools, u32 nr, unsigned int flags)
{
	struct urd *urd = NULL;
	char err[256] = "";

	cr_assert_eq(open_pools(pools, nr, flags, &urd, err, sizeof(err)), 0, "%s", err);
	return urd;
}

static struct urd_call call_of(const char *pool, const char *method, const struct value *v)
{
	return (struct urd_call){
		.pool = pool,
		.method = method,
		.params = v->p,
		.params_len = v->len,
	};
}

static enum urd_code execute(struct urd *urd, const char *pool, const char *method, struct value v)
{
	struct urd_call call = call_of(pool, method, &v);
	struct urd_reply *reply = NULL;
	enum urd_code code;

	cr_assert_eq(urd_execute(urd, &call, &reply), 0);
	code = reply->code;
	if (code == URD_OK && !strcmp(method, "echo")) {
		cr_assert_eq(reply->len, v.len);
		cr_assert_arr_eq(reply->data, v.p, v.len);
	}
	urd_reply_free(reply);
	return code;
}

/* What callbacks leave behind. */
struct tally {
	_Atomic u32 done;
	_Atomic u32 codes[URD_CODE_NR];
};

static void count(const struct urd_reply *reply, void *arg)
{
	struct tally *t = arg;

	atomic_fetch_add(&t->codes[reply->code], 1);
	atomic_fetch_add(&t->done, 1);
}

static void must_submit(struct urd *urd, const char *method, struct value v, struct tally *t)
{
	struct urd_call call = call_of(NULL, method, &v);

	cr_assert_eq(urd_submit(urd, &call, count, t), 0);
}

static void *caller(void *arg)
{
	for (u64 i = 0; i < 200; i++)
		cr_assert_eq(execute(arg, NULL, "echo", value_number(i << 32 | (u64)gettid())),
			     URD_OK);
	return NULL;
}

Test(api, many_threads_execute_at_once)
{
	struct urd_pool_conf pool = pool_conf("p", 2);
	struct urd *urd = must_open(&pool, 1, 0);
	pthread_t threads[8];

	for (u32 i = 0; i < ARRAY_SIZE(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, caller, urd), 0);
	for (u32 i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	await(urd_ready(urd, "p") == 2);
	cr_assert_eq(urd_ready(urd, NULL), 2);
	cr_assert_eq(urd_ready(urd, "q"), 0);
	urd_close(urd);
}

Test(api, submit_calls_back_once_each)
{
	struct urd_pool_conf pool = pool_conf("p", 2);
	struct urd *urd = must_open(&pool, 1, 0);
	struct tally t = { .done = 0 };

	for (u32 i = 0; i < 500; i++)
		must_submit(urd, "echo", value_number(i), &t);
	must_submit(urd, "no.such.method", value_number(0), &t);
	await(t.done == 501);
	cr_assert_eq(t.codes[URD_OK], 500);
	cr_assert_eq(t.codes[URD_APP], 1);
	urd_close(urd);
	cr_assert_eq(t.done, 501, "called twice");
}

Test(api, loop_is_turned_by_the_caller)
{
	struct urd_pool_conf pool = pool_conf("p", 2);
	struct urd *urd = must_open(&pool, 1, URD_OPEN_LOOP);
	struct pollfd pfd = { .fd = urd_fd(urd), .events = POLLIN };
	struct tally t = { .done = 0 };
	u64 end = now_ms() + PATIENCE_MS;

	cr_assert_eq(execute(urd, NULL, "echo", value_text("turned by execute")), URD_OK);
	for (u32 i = 0; i < 300; i++)
		must_submit(urd, "echo", value_number(i), &t);
	/* nobody but poll tells when to turn: nothing may be left behind without a sign */
	cr_assert_eq(urd_turn(urd, 0), 1);
	while (t.done < 300) {
		cr_assert_lt(now_ms(), end);
		cr_assert_eq(poll(&pfd, 1, PATIENCE_MS), 1, "stalled after %u", t.done);
		cr_assert_eq(urd_turn(urd, 0), 1);
	}
	cr_assert_eq(t.codes[URD_OK], 300);
	urd_drain(urd, 5 * URD_SEC);
	while (urd_turn(urd, URD_SEC))
		cr_assert_lt(now_ms(), end);
	urd_close(urd);
}

static void *stranger(void *arg)
{
	struct value v = value_number(1);
	struct urd_call call = call_of(NULL, "echo", &v);
	struct tally t = { .done = 0 };
	struct urd_reply *reply;

	cr_assert_eq(urd_submit(arg, &call, count, &t), -EPERM);
	cr_assert_eq(urd_execute(arg, &call, &reply), -EPERM);
	cr_assert_eq(t.done, 0);
	return NULL;
}

Test(api, loop_belongs_to_one_thread)
{
	struct urd_pool_conf pool = pool_conf("p", 1);
	struct urd *urd = must_open(&pool, 1, URD_OPEN_LOOP);
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, stranger, urd), 0);
	pthread_join(thread, NULL);
	urd_close(urd);
}

struct chain {
	struct urd *urd;
	_Atomic u32 left;
};

static void go_on(const struct urd_reply *reply, void *arg)
{
	struct chain *c = arg;
	struct value v = value_number(c->left);
	struct urd_call call = call_of(NULL, "echo", &v);

	cr_assert_eq(reply->code, URD_OK);
	if (--c->left)
		cr_assert_eq(urd_submit(c->urd, &call, go_on, c), 0);
}

Test(api, callback_may_submit)
{
	static const unsigned int flags[] = { 0, URD_OPEN_LOOP };

	for (u32 i = 0; i < ARRAY_SIZE(flags); i++) {
		struct urd_pool_conf pool = pool_conf("p", 1);
		struct chain c = { .urd = must_open(&pool, 1, flags[i]), .left = 100 };
		struct value v = value_number(0);
		struct urd_call call = call_of(NULL, "echo", &v);

		cr_assert_eq(urd_submit(c.urd, &call, go_on, &c), 0);
		if (flags[i])
			while (c.left)
				cr_assert_eq(urd_turn(c.urd, URD_SEC), 1);
		await(!c.left);
		urd_close(c.urd);
	}
}

Test(api, what_cannot_be_sent_is_refused)
{
	struct urd_pool_conf pool = pool_conf("p", 1);
	struct urd *urd = must_open(&pool, 1, 0);
	struct tally t = { .done = 0 };
	struct value v = value_number(1);
	struct urd_call call = call_of(NULL, "", &v);

	cr_assert_eq(urd_submit(urd, &call, count, &t), -EINVAL);
	call.method = "echo";
	call.params_len = 3; /* cut off */
	cr_assert_eq(urd_submit(urd, &call, count, &t), -EINVAL);
	call.params = "\xc0\xc0"; /* two values */
	call.params_len = 2;
	cr_assert_eq(urd_submit(urd, &call, count, &t), -EINVAL);
	call.params_len = URD_REQUEST_MAX + 1;
	cr_assert_eq(urd_submit(urd, &call, count, &t), -EMSGSIZE);
	cr_assert_eq(t.done, 0);
	cr_assert_eq(execute(urd, "q", "echo", v), URD_NO_POOL);
	cr_assert_eq(execute(urd, "p", "echo", v), URD_OK);
	urd_close(urd);
}

Test(api, deadline_of_a_call)
{
	struct urd_pool_conf pool = pool_conf("p", 1);
	struct urd *urd = must_open(&pool, 1, 0);
	struct value v = value_number(0);
	struct urd_call call = call_of(NULL, "hang", &v);
	struct urd_reply *reply;
	u64 begun;

	cr_assert_eq(execute(urd, NULL, "echo", v), URD_OK);
	call.deadline_ns = 150 * URD_MSEC;
	begun = now_ms();
	cr_assert_eq(urd_execute(urd, &call, &reply), 0);
	cr_assert_eq(reply->code, URD_EXEC_TIMEOUT);
	cr_assert_eq(reply->executed, URD_EXECUTED_MAYBE);
	cr_assert(*reply->message);
	urd_reply_free(reply);
	cr_assert_geq(now_ms() - begun, 150);
	cr_assert_lt(now_ms() - begun, 150 + 1000 * SLOWNESS);
	urd_close(urd);
}

Test(api, drain_finishes_what_runs)
{
	struct urd_pool_conf pool = pool_conf("p", 1);
	struct urd *urd = must_open(&pool, 1, 0);
	struct tally t = { .done = 0 };
	struct value v = value_number(0);
	struct urd_call call = call_of(NULL, "echo", &v);

	must_submit(urd, "slow", value_number(300), &t);
	must_submit(urd, "echo", v, &t);
	urd_drain(urd, 20 * URD_SEC);
	cr_assert_eq(t.done, 2);
	cr_assert_eq(t.codes[URD_OK], 2);
	cr_assert_eq(urd_submit(urd, &call, count, &t), -ESHUTDOWN);
	urd_close(urd);
	cr_assert_eq(t.done, 2);
}

Test(api, drain_cuts_what_takes_too_long)
{
	struct urd_pool_conf pool = pool_conf("p", 1);
	struct urd *urd = must_open(&pool, 1, 0);
	struct tally t = { .done = 0 };
	pid_t pids[WORKERS_MAX];

	cr_assert_eq(execute(urd, NULL, "echo", value_number(0)), URD_OK);
	must_submit(urd, "hang", value_number(0), &t);
	must_submit(urd, "hang", value_number(0), &t);
	urd_drain(urd, 100 * URD_MSEC);
	cr_assert_eq(t.done, 2);
	cr_assert_eq(t.codes[URD_OK], 0);
	urd_close(urd);
	cr_assert_eq(workers_of(getpid(), pids, WORKERS_MAX), 0);
}

Test(api, close_in_every_state)
{
	static const char *const *const argvs[] = { bad_argv, never_argv, exit_argv };

	for (u32 i = 0; i < ARRAY_SIZE(argvs); i++) {
		for (u32 flags = 0; flags <= URD_OPEN_LOOP; flags++) {
			struct urd_pool_conf pool = pool_conf("p", 4);
			struct tally t = { .done = 0 };
			pid_t pids[WORKERS_MAX];
			struct urd *urd;

			pool.argv = argvs[i];
			urd = must_open(&pool, 1, flags);
			must_submit(urd, "hang", value_number(0), &t);
			urd_close(urd);
			cr_assert_eq(t.done, 1, "a caller was forgotten");
			cr_assert_eq(t.codes[URD_OK], 0);
			cr_assert_eq(workers_of(getpid(), pids, WORKERS_MAX), 0);
		}
	}
}

Test(api, two_instances_do_not_disturb_each_other)
{
	struct urd_pool_conf one = pool_conf("one", 2), two = pool_conf("two", 2);
	struct urd *a = must_open(&one, 1, 0), *b = must_open(&two, 1, URD_OPEN_LOOP);

	for (u32 i = 0; i < 50; i++) {
		cr_assert_eq(execute(a, "one", "echo", value_number(i)), URD_OK);
		cr_assert_eq(execute(b, "two", "echo", value_number(i)), URD_OK);
	}
	cr_assert_eq(execute(a, "two", "echo", value_number(0)), URD_NO_POOL);
	urd_close(a);
	cr_assert_eq(execute(b, NULL, "echo", value_number(7)), URD_OK);
	urd_close(b);
}

Test(api, a_pool_that_fails_does_not_harm_another)
{
	struct urd_pool_conf pools[2] = { pool_conf("good", 1), pool_conf("broken", 1) };
	struct urd *urd;

	pools[1].argv = exit_argv;
	urd = must_open(pools, 2, 0);
	cr_assert_eq(execute(urd, "broken", "echo", value_number(0)), URD_POOL_FAILED);
	cr_assert_eq(execute(urd, "good", "echo", value_number(0)), URD_OK);
	cr_assert_eq(urd_ready(urd, "broken"), 0);
	urd_close(urd);
}

Test(api, open_says_what_is_wrong)
{
	struct urd_pool_conf pools[2] = { pool_conf("p", 1), pool_conf("p", 1) };
	struct urd *urd = NULL;
	char err[256];

	cr_assert_eq(open_pools(pools, 2, 0, &urd, err, sizeof(err)), -EINVAL);
	cr_assert(strstr(err, "two of that name"), "%s", err);
	cr_assert_eq(open_pools(pools, 0, 0, &urd, err, sizeof(err)), -EINVAL);
	pools[0].min_workers = 3;
	pools[0].max_workers = 2;
	cr_assert_eq(open_pools(pools, 1, 0, &urd, err, sizeof(err)), -EINVAL);
	cr_assert(strstr(err, "workers"), "%s", err);
	pools[0] = pool_conf("a b", 1);
	cr_assert_eq(open_pools(pools, 1, 0, &urd, err, sizeof(err)), -EINVAL);
	pools[0] = pool_conf("p", 1);
	pools[0].argv = NULL;
	cr_assert_eq(open_pools(pools, 1, 0, &urd, err, sizeof(err)), -EINVAL);
	cr_assert(strstr(err, "command"), "%s", err);
	cr_assert_null(urd);
}
