// SPDX-License-Identifier: MIT
/*
 * Known weaknesses of folk 0.1, second half: workers, their places and their
 * descriptors.  Each test is named after the weakness, states what must be true
 * instead, and does so for the folk and for the native protocol.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/daemon.h"

static const char *const protocols[] = { "folk", "urd" };

static void start(struct daemon *d, const char *protocol, const char *workers, const char *how,
		  const char *opt)
{
	const char *command[] = { BAD, how, NULL };
	const char *opts[8];
	char proto[64], nr[64];
	u32 n = 0;

	snprintf(proto, sizeof(proto), "pool.default.protocol=%s", protocol);
	snprintf(nr, sizeof(nr), "pool.default.workers=%s", workers);
	opts[n++] = proto;
	opts[n++] = nr;
	opts[n++] = "pool.default.backoff_min=10ms";
	if (opt)
		opts[n++] = opt;
	opts[n] = NULL;
	*d = (struct daemon){ .pid = 0 };
	daemon_start(d, opts, command);
}

#define each_protocol(p)                                \
	for (const char *p, *const *p##_at = protocols; \
	     p##_at < protocols + ARRAY_SIZE(protocols) && (p = *p##_at); p##_at++)

/* Wait until so many workers are there; their pids. */
static void await_workers(const struct daemon *d, pid_t *pids, u32 n)
{
	await(workers_of(d->pid, pids, WORKERS_MAX) == n);
}

Test(folk_weaknesses, f03_dead_worker_leaves_the_rotation)
{
	each_protocol(p)
	{
		pid_t pids[WORKERS_MAX];
		struct urd_client *other;
		struct urd_answer a;
		struct daemon d;
		pid_t healthy;

		start(&d, p, "2", NULL, NULL);
		other = client_new(&d);
		/* the second is answered by the worker that does not hang */
		post(other, "hang", value_number(0));
		post(other, "pid", value_number(0));
		a = take(other);
		healthy = (pid_t)answer_number(&a);
		await_workers(&d, pids, 2);
		kill(pids[0] == healthy ? pids[1] : pids[0], SIGKILL);
		a = take(other);
		cr_assert_eq(a.code, URD_WORKER_DIED);
		cr_assert_eq(a.executed, URD_EXECUTED_MAYBE);
		for (u32 i = 0; i < 200; i++)
			must_echo(&d, "no failure after the first");
		urd_client_close(other);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f04_death_of_an_idle_worker_is_seen)
{
	each_protocol(p)
	{
		pid_t pids[WORKERS_MAX];
		struct daemon d;
		pid_t pid;

		start(&d, p, "1", NULL, NULL);
		pid = worker_pid(&d);
		kill(pid, SIGKILL);
		/* replaced without a request that finds out */
		await(workers_of(d.pid, pids, WORKERS_MAX) == 1 && pids[0] != pid);
		must_echo(&d, "nobody was sacrificed");
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f05_no_request_waits_behind_a_slow_one)
{
	each_protocol(p)
	{
		struct urd_client *other;
		struct urd_answer a;
		struct daemon d;
		u64 begun;

		start(&d, p, "2", NULL, NULL);
		must_echo(&d, "up");
		other = client_new(&d);
		begun = now_ms();
		post(other, "slow", value_number(2000 * SLOWNESS));
		push(other);
		for (u32 i = 0; i < 50; i++)
			must_echo(&d, "by the other worker");
		cr_assert_lt(now_ms() - begun, 1500 * SLOWNESS);
		a = take(other);
		cr_assert_eq(a.code, URD_OK);
		cr_assert_geq(now_ms() - begun, 2000);
		urd_client_close(other);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f06_a_slow_worker_does_not_stall_the_pool)
{
	each_protocol(p)
	{
		struct daemon d;
		u32 slow, n = 0;

		start(&d, p, "2", NULL, "pool.default.queue_max=1000");
		must_echo(&d, "up");
		/* far more than any inbox of a slot would take, all on one connection */
		slow = post(d.client, "slow", value_number(1500 * SLOWNESS));
		for (u32 i = 0; i < 500; i++)
			post(d.client, "echo", value_number(i));
		for (; n < 501; n++) {
			struct urd_answer a = take(d.client);

			cr_assert_eq(a.code, URD_OK, "%s", a.message);
			if (a.msgid == slow)
				break;
		}
		cr_assert_eq(n, 500, "the slow one was answered before %u others", 500 - n);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f18_control_channel_is_read_all_the_time)
{
	each_protocol(p)
	{
		struct urd_answer a;
		struct daemon d;
		pid_t old;

		start(&d, p, "1", NULL, "pool.default.exec_timeout=20s");
		old = worker_pid(&d);
		a = call_ok(&d, "beat", value_text("a MiB of heartbeats"));
		cr_assert(answer_is(&a, value_text("a MiB of heartbeats")));
		cr_assert_eq(worker_pid(&d), old);
		/* and ready means ready: once */
		(void)call(&d, "ready", value_number(0));
		await(!pid_lives(old));
		must_echo(&d, "replaced");
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f18_first_control_frame_must_be_ready)
{
	static const char *const hows[] = { "wrong", "garbage", "nopid", "mute" };

	each_protocol(p)
	{
		for (u32 i = 0; i < ARRAY_SIZE(hows); i++) {
			struct urd_answer a;
			struct daemon d;

			start(&d, p, "1", hows[i], NULL);
			a = call(&d, "echo", value_number(0));
			cr_assert_eq(a.code, URD_POOL_FAILED, "%s", hows[i]);
			cr_assert_eq(a.executed, URD_EXECUTED_NO);
			daemon_stop(&d);
		}
	}
}

Test(folk_weaknesses, f19_output_is_read_all_the_time)
{
	each_protocol(p)
	{
		struct urd_answer a;
		struct daemon d;

		start(&d, p, "1", "flood", "pool.default.boot_timeout=20s");
		for (u32 i = 0; i < 3; i++) {
			a = call_ok(&d, "flood", value_text("after 2 MiB of text"));
			cr_assert(answer_is(&a, value_text("after 2 MiB of text")));
		}
		a = call(&d, "floodexit", value_number(0));
		cr_assert_eq(a.code, URD_WORKER_DIED);
		must_echo(&d, "and on");
		daemon_stop(&d);
	}
}

/* What descriptor @fd of a process is, "pipe:[7]" for example; "" if it is not open. */
static void fd_name(pid_t pid, int fd, char *name, size_t len)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
	n = readlink(path, name, len - 1);
	name[n > 0 ? n : 0] = 0;
}

static u32 fds_nr(pid_t pid)
{
	char path[64];
	DIR *dir;
	u32 n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	cr_assert_not_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2; /* . and .. */
}

/* stdin to the last channel are what the protocol says, and nothing else is open. */
static void must_have_fds(pid_t pid, const char *protocol)
{
	bool folk = !strcmp(protocol, "folk");
	u32 last = folk ? 4 : 6;
	char name[128];

	fd_name(pid, 0, name, sizeof(name));
	cr_assert_str_eq(name, "/dev/null");
	for (u32 fd = 1; fd <= last; fd++) {
		fd_name(pid, (int)fd, name, sizeof(name));
		cr_assert_eq(strncmp(name, folk && fd > 2 ? "socket:" : "pipe:", 5), 0,
			     "descriptor %u is \"%s\"", fd, name);
	}
	cr_assert_eq(fds_nr(pid), last + 1, "%u descriptors", fds_nr(pid));
}

Test(folk_weaknesses, f20_channels_are_in_place_whatever_was_open)
{
	/* lowest free descriptor of urd at its start: the pipes' ends land there */
	static const int lowest[] = { 0, 3, 4, 5, 6, 7, 14, 20 };

	each_protocol(p)
	{
		for (u32 i = 0; i < ARRAY_SIZE(lowest); i++) {
			pid_t pids[WORKERS_MAX];
			struct daemon d;
			int keep[32];
			int fd, n = 0;

			if (lowest[i] == 0)
				close(0);
			while ((fd = open("/dev/null", O_RDWR)) < lowest[i])
				keep[n++] = fd;
			close(fd);
			start(&d, p, "3", NULL, NULL);
			must_echo(&d, "through the right descriptors");
			await_workers(&d, pids, 3);
			for (u32 k = 0; k < 3; k++)
				await(fds_nr(pids[k]) == (strcmp(p, "folk") ? 7 : 5));
			must_have_fds(pids[0], p);
			daemon_stop(&d);
			while (n--)
				close(keep[n]);
			if (lowest[i] == 0)
				open("/dev/null", O_RDWR);
		}
	}
}

Test(folk_weaknesses, f21_no_worker_holds_the_channel_of_another)
{
	each_protocol(p)
	{
		enum { NR = 12, FDS = 7 };
		static char names[NR][FDS][128];
		pid_t pids[WORKERS_MAX];
		struct daemon d;
		u32 fds = strcmp(p, "folk") ? FDS : 5;

		start(&d, p, "12", NULL, NULL);
		must_echo(&d, "up");
		await_workers(&d, pids, NR);
		await(fds_nr(pids[NR - 1]) == fds);
		for (u32 i = 0; i < NR; i++) {
			await(fds_nr(pids[i]) == fds);
			for (u32 fd = 1; fd < fds; fd++)
				fd_name(pids[i], (int)fd, names[i][fd], sizeof(names[i][fd]));
		}
		for (u32 i = 0; i < NR; i++)
			for (u32 k = 0; k < i; k++)
				for (u32 a = 1; a < fds; a++)
					for (u32 b = 1; b < fds; b++)
						cr_assert_str_neq(names[i][a], names[k][b]);
		/* so the end of each is seen at once */
		for (u32 i = 0; i < NR; i++)
			kill(pids[i], SIGKILL);
		for (u32 i = 0; i < NR; i++)
			await(pid_is_reaped(pids[i]));
		must_echo(&d, "all are new");
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f22_a_signal_hits_the_worker_and_nobody_else)
{
	each_protocol(p)
	{
		struct daemon d;
		pid_t canary;
		int status;

		/* of the process group that urd is in, too */
		canary = fork();
		if (canary == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		start(&d, p, "2", NULL, "pool.default.exec_timeout=100ms");
		for (u32 i = 0; i < 3; i++) {
			pid_t pid;

			cr_assert_eq(call(&d, "hang", value_number(0)).code, URD_EXEC_TIMEOUT);
			pid = worker_pid(&d);
			kill(pid, SIGKILL);
			await(pid_is_reaped(pid));
			must_echo(&d, "on");
		}
		daemon_stop(&d);
		cr_assert_eq(waitpid(canary, &status, WNOHANG), 0, "a stranger was killed");
		kill(canary, SIGKILL);
		waitpid(canary, &status, 0);
	}
}

Test(folk_weaknesses, f22_ending_a_stubborn_worker_keeps_nobody_waiting)
{
	struct daemon d;
	pid_t old;

	start(&d, "urd", "1", "stubborn", "pool.default.stop_timeout=2s");
	old = worker_pid(&d);
	(void)call_ok(&d, "retire", value_number(0));
	/* it ignores end of file and SIGTERM; a new one serves meanwhile */
	await(worker_pid(&d) != old);
	cr_assert(pid_lives(old));
	await(!pid_lives(old));
	daemon_stop(&d);
}

Test(folk_weaknesses, f24_a_pool_without_workers_is_refused)
{
	static const char *const bad[] = { "pool.default.workers=0", "pool.default.min_workers=0",
					   "pool.default.max_workers=0" };

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *opts[] = { bad[i], NULL };
		const char *command[] = { BAD, NULL };
		struct daemon d = { .silent = true };
		int status;

		daemon_start(&d, opts, command);
		status = daemon_reap(&d);
		cr_assert(WIFEXITED(status));
		cr_assert_eq(WEXITSTATUS(status), 2, "%s: %d", bad[i], WEXITSTATUS(status));
		cr_assert(daemon_logged(&d, "workers"), "the key is not named");
		unlink(d.log);
		rmdir(d.dir);
	}
}
