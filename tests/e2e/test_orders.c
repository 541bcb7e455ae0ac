// SPDX-License-Identifier: MIT
/*
 * Orders of a program that has a urd within itself: urd_scale() and urd_reload(),
 * who may give them, and that they come to something.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <urd/urd.h>

#include "base/base.h"
#include "lib/daemon.h"

static struct urd *urd_new(unsigned int flags)
{
	static const char *const command[] = { ECHO, NULL };
	struct urd_pool_conf pools[2] = { URD_POOL_CONF_INIT, URD_POOL_CONF_INIT };
	struct urd_conf conf = URD_CONF_INIT;
	struct urd *urd = NULL;
	char err[256] = "";

	pools[0].name = "first";
	pools[1].name = "second";
	for (u32 i = 0; i < 2; i++) {
		pools[i].argv = command;
		pools[i].min_workers = 1;
		pools[i].max_workers = 3;
	}
	conf.pools = pools;
	conf.pools_nr = 2;
	conf.log_fd = -1;
	cr_assert_eq(urd_open(&conf, flags, &urd, err, sizeof(err)), 0, "%s", err);
	return urd;
}

/* Turn until so many workers of a pool are ready. */
static void turn_until(struct urd *urd, const char *pool, u32 ready)
{
	u64 end = now_ms() + PATIENCE_MS;

	while (urd_ready(urd, pool) != ready) {
		cr_assert_lt(now_ms(), end, "%s has %u workers, not %u", pool, urd_ready(urd, pool),
			     ready);
		cr_assert_eq(urd_turn(urd, 100 * URD_MSEC), 1);
	}
}

static void *other_thread(void *arg)
{
	cr_expect_eq(urd_scale(arg, "first", 2), -EPERM);
	cr_expect_eq(urd_reload(arg, NULL), -EPERM);
	return NULL;
}

static int result_pid(const void *data, size_t len)
{
	const u8 *p = data;
	u32 v = 0;

	/* an integer of MessagePack: its type, then big-endian bytes */
	for (size_t i = len > 1 ? 1 : 0; i < len; i++)
		v = v << 8 | p[i];
	return (int)v;
}

static int pid_of(struct urd *urd, const char *pool)
{
	struct urd_call call = { .pool = pool, .method = "pid", .params = "\xc0", .params_len = 1 };
	struct urd_reply *reply;
	int pid;

	cr_assert_eq(urd_execute(urd, &call, &reply), 0);
	cr_assert_eq(reply->code, URD_OK, "%s", reply->message);
	pid = result_pid(reply->data, reply->len);
	urd_reply_free(reply);
	return pid;
}

Test(orders, scale)
{
	struct urd *urd = urd_new(URD_OPEN_LOOP);

	turn_until(urd, NULL, 2);
	cr_expect_eq(urd_scale(urd, "third", 1), -ENOENT);
	cr_expect_eq(urd_scale(urd, "first", 0), -EINVAL);
	cr_expect_eq(urd_scale(urd, "second", 2), 2);
	turn_until(urd, "second", 2);
	cr_expect_eq(urd_ready(urd, "first"), 1);
	cr_expect_eq(urd_scale(urd, NULL, 99), 3, "not more than max_workers");
	turn_until(urd, "first", 3);
	cr_expect_eq(urd_scale(urd, "first", 1), 1);
	turn_until(urd, "first", 1);
	cr_expect_eq(urd_ready(urd, "second"), 2);
	urd_close(urd);
}

Test(orders, reload)
{
	struct urd *urd = urd_new(URD_OPEN_LOOP);
	u64 end = now_ms() + PATIENCE_MS;
	int first, second;

	turn_until(urd, NULL, 2);
	first = pid_of(urd, "first");
	second = pid_of(urd, "second");
	cr_expect_eq(urd_reload(urd, "third"), -ENOENT);
	cr_expect_eq(urd_reload(urd, "first"), 1);
	while (pid_of(urd, "first") == first)
		cr_assert_lt(now_ms(), end);
	cr_expect_eq(pid_of(urd, "second"), second, "the other pool is left alone");
	cr_expect_eq(urd_reload(urd, NULL), 2);
	while (pid_of(urd, "second") == second)
		cr_assert_lt(now_ms(), end);
	urd_drain(urd, URD_SEC);
	cr_expect_eq(urd_scale(urd, "first", 2), -ESHUTDOWN);
	cr_expect_eq(urd_reload(urd, NULL), -ESHUTDOWN);
	urd_close(urd);
}

Test(orders, only_by_the_owner)
{
	struct urd *urd = urd_new(URD_OPEN_LOOP);
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, other_thread, urd), 0);
	pthread_join(thread, NULL);
	urd_close(urd);
	urd = urd_new(0);
	other_thread(urd);
	urd_close(urd);
}
