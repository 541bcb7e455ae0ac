// SPDX-License-Identifier: MIT
/*
 * Strangers: orphans are collected, workers are left to their pools, and nobody
 * stands in the way of the others.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/reaper.h"
#include "ring/spawn.h"

#define WAIT_MS 20000

static void readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	cr_assert_eq(poll(&p, 1, WAIT_MS), 1, "nothing within %d ms", WAIT_MS);
}

static bool none_is_worker(pid_t pid, void *arg)
{
	(void)pid;
	(void)arg;
	return false;
}

static bool is_that(pid_t pid, void *arg)
{
	return pid == *(pid_t *)arg;
}

/* Leave an orphan; wait until it is ours and has ended. */
static pid_t orphan_make(void)
{
	pid_t middle, orphan;
	siginfo_t info;
	int p[2];

	cr_assert_eq(pipe(p), 0);
	middle = fork();
	if (!middle) {
		orphan = fork();
		if (!orphan)
			_exit(7);
		_exit(write(p[1], &orphan, sizeof(orphan)) == sizeof(orphan) ? 0 : 1);
	}
	cr_assert_eq(read(p[0], &orphan, sizeof(orphan)), (ssize_t)sizeof(orphan));
	cr_assert_eq(waitid(P_PID, (id_t)middle, &info, WEXITED), 0);
	cr_assert_eq(waitid(P_PID, (id_t)orphan, &info, WEXITED | WNOWAIT), 0);
	cr_assert_eq(info.si_status, 7);
	close(p[1]);
	close(p[0]);
	return orphan;
}

Test(reaper, collects_orphans_and_leaves_workers_alone)
{
	static char *argv[] = { (char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
				(char *)(uintptr_t) "exit 5", NULL };
	static char *envp[] = { NULL };
	static struct urd_spawn_spec spec = { .argv = argv, .envp = envp };
	struct urd_spawn_ask ask = { .spec = &spec };
	struct urd_spawner *sp;
	struct urd_spawned got;
	siginfo_t info;

	cr_assert_eq(urd_reaper_start(), 0);
	cr_assert_eq(urd_spawner_start(&sp), 0);
	cr_assert_eq(urd_spawner_ask(sp, &ask), 0);
	readable(urd_spawner_fd(sp));
	cr_assert_eq(read(urd_spawner_fd(sp), &got, sizeof(got)), (ssize_t)sizeof(got));
	cr_assert_eq(got.err, 0);
	/* it has ended and is not yet collected */
	readable(got.child.pidfd);
	for (int i = 0; i < 3; i++)
		orphan_make();
	cr_expect_eq(urd_reaper_collect(none_is_worker, NULL, 100), 3);
	cr_expect_eq(urd_reaper_collect(none_is_worker, NULL, 100), 0);
	cr_assert_eq(urd_child_reap(&got.child, &info), 0);
	urd_child_close(&got.child);
	cr_expect_eq(info.si_code, CLD_EXITED);
	cr_expect_eq(info.si_status, 5, "the exit status belongs to the pool");
	urd_spawner_stop(sp);
}

Test(reaper, stops_at_its_bound)
{
	cr_assert_eq(urd_reaper_start(), 0);
	for (int i = 0; i < 5; i++)
		orphan_make();
	cr_expect_eq(urd_reaper_collect(none_is_worker, NULL, 3), 3);
	cr_expect_eq(urd_reaper_collect(none_is_worker, NULL, 3), 2);
}

/* A worker whose own parent has died is an orphan, and stands in the way of others. */
Test(reaper, looks_behind_a_worker)
{
	pid_t worker;
	siginfo_t info;

	if (access("/proc/thread-self/children", R_OK) < 0)
		cr_skip_test("this kernel has no list of children");
	cr_assert_eq(urd_reaper_start(), 0);
	worker = orphan_make();
	orphan_make();
	orphan_make();
	cr_expect_eq(urd_reaper_collect(is_that, &worker, 100), 2);
	cr_assert_eq(waitid(P_PID, (id_t)worker, &info, WEXITED | WNOHANG), 0);
	cr_expect_eq(info.si_pid, worker);
	cr_expect_eq(info.si_status, 7);
}

/* Who starts us may ignore SIGCHLD; the kernel would then keep no exit status. */
Test(reaper, undoes_an_ignored_signal)
{
	signal(SIGCHLD, SIG_IGN);
	cr_assert_eq(urd_reaper_start(), 0);
	orphan_make();
	cr_expect_eq(urd_reaper_collect(none_is_worker, NULL, 100), 1);
}
