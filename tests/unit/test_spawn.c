// SPDX-License-Identifier: MIT
/*
 * Real processes: what a worker is given, what it is kept from, how it ends with
 * us, and what is said when it cannot be started.  Most of it is the same for root
 * and for anybody else; each test says where it is not.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/spawn_child.h"

#define WAIT_MS 20000
#define NOBODY 65534

static char *environment[] = { NULL };

/* A spawner, and the worker that it made last. */
struct rig {
	struct urd_spawner *sp;
	struct urd_spawn_spec spec;
	struct urd_spawned got;
	char *argv[4];
	char text[8192]; /* what the worker printed, to its end */
};

static void rig_up(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->spec.argv = rig->argv;
	rig->spec.envp = environment;
	cr_assert_eq(urd_spawner_start(&rig->sp), 0);
}

static void readable(int fd, const char *what)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	cr_assert_eq(poll(&p, 1, WAIT_MS), 1, "%s: nothing within %d ms", what, WAIT_MS);
}

/* Start @program with two arguments; the answer is in rig->got. */
static void rig_exec(struct rig *rig, const char *program, const char *a, const char *b)
{
	struct urd_spawn_ask ask = { .spec = &rig->spec, .slot = 3, .worker = 1 };

	rig->argv[0] = (char *)(uintptr_t)program;
	rig->argv[1] = (char *)(uintptr_t)a;
	rig->argv[2] = (char *)(uintptr_t)b;
	cr_assert_eq(urd_spawner_ask(rig->sp, &ask), 0);
	readable(urd_spawner_fd(rig->sp), "answer of the spawner");
	cr_assert_eq(read(urd_spawner_fd(rig->sp), &rig->got, sizeof(rig->got)),
		     (ssize_t)sizeof(rig->got));
	cr_assert_eq(rig->got.slot, 3);
}

static void rig_start(struct rig *rig, const char *script)
{
	rig_exec(rig, "/bin/sh", "-c", script);
	cr_assert_eq(rig->got.err, 0, "%s %s: %s", rig->got.step, rig->got.detail,
		     strerror(-rig->got.err));
	cr_assert_null(rig->got.step);
}

static int number(const char *text)
{
	return (int)strtol(text, NULL, 10);
}

/* One line of the worker's output. */
static void rig_line(struct rig *rig)
{
	size_t n = 0;

	do {
		readable(rig->got.child.out_rd, "a line of the worker");
		cr_assert_eq(read(rig->got.child.out_rd, rig->text + n, 1), 1);
	} while (rig->text[n++] != '\n');
	rig->text[n - 1] = '\0';
}

/* Wait for the end, collect it and close everything. */
static siginfo_t rig_end(struct rig *rig)
{
	siginfo_t info;

	readable(rig->got.child.pidfd, "end of the worker");
	cr_assert_eq(urd_child_reap(&rig->got.child, &info), 0);
	urd_child_close(&rig->got.child);
	return info;
}

/* Run a script that ends by itself; what it printed is in rig->text. */
static void rig_run(struct rig *rig, const char *script)
{
	size_t used = 0;
	ssize_t n = 1;

	rig_start(rig, script);
	while (n > 0) {
		readable(rig->got.child.out_rd, "output of the worker");
		n = read(rig->got.child.out_rd, rig->text + used, sizeof(rig->text) - 1 - used);
		used += n > 0 ? (size_t)n : 0;
	}
	rig->text[used] = '\0';
	rig_end(rig);
}

/* A start that must fail: at which step, why, and what is said. */
static void fails(struct rig *rig, const char *program, const char *step, int err,
		  const char *detail)
{
	rig_exec(rig, program, "-c", "exit 0");
	cr_assert_eq(rig->got.err, -err, "%s %s: %s", rig->got.step ? rig->got.step : "started",
		     rig->got.detail, strerror(-rig->got.err));
	cr_expect_str_eq(rig->got.step, step);
	cr_expect(strstr(rig->got.detail, detail), "\"%s\" lacks \"%s\"", rig->got.detail, detail);
	cr_expect_eq(rig->got.child.pid, 0);
	cr_expect_eq(rig->got.child.pidfd, -1);
}

/* Continue as nobody special, as a daemon without root would. */
static void become_nobody(void)
{
	if (geteuid())
		return;
	cr_assert_eq(setgroups(0, NULL), 0);
	cr_assert_eq(setresgid(NOBODY, NOBODY, NOBODY), 0);
	cr_assert_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
}

static void only_root(void)
{
	if (geteuid())
		cr_skip_test("needs root");
}

static u32 fds_open(void)
{
	u32 n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- what each worker is given ---- */

Test(spawn, session_group_and_descriptors)
{
	int pid, group, session, fd;
	struct rig rig;

	/* none of these may come through */
	fd = open("/dev/null", O_RDWR);
	cr_assert_geq(fcntl(fd, F_DUPFD, 200), 200);
	rig_up(&rig);
	rig_run(&rig,
		"cut -d' ' -f1,5,6 /proc/$$/stat; for i in $(seq 0 300); do "
		"[ -e /proc/$$/fd/$i ] && printf '%d ' $i; done; echo; readlink /proc/$$/fd/0");
	cr_assert_eq(sscanf(rig.text, "%d %d %d", &pid, &group, &session), 3, "%s", rig.text);
	cr_expect_eq(pid, group);
	cr_expect_eq(pid, session);
	cr_expect_neq(session, getsid(0));
	cr_expect(strstr(rig.text, "\n0 1 2 3 4 5 6 \n/dev/null\n"), "%s", rig.text);
	urd_spawner_stop(rig.sp);
}

Test(spawn, signals_are_as_in_a_new_process)
{
	struct rig rig;
	sigset_t all;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	rig_up(&rig);
	rig_run(&rig, "grep -E '^Sig(Blk|Ign)' /proc/self/status");
	cr_expect(strstr(rig.text, "SigBlk:\t0000000000000000"), "%s", rig.text);
	cr_expect(strstr(rig.text, "SigIgn:\t0000000000000000"), "%s", rig.text);
	urd_spawner_stop(rig.sp);
}

Test(spawn, a_ring_that_is_pinned_later_pins_no_worker)
{
	cpu_set_t start, one, worker;
	struct rig rig;

	cr_assert_eq(sched_getaffinity(0, sizeof(start), &start), 0);
	if (CPU_COUNT(&start) < 2)
		cr_skip_test("needs two CPUs");
	rig_up(&rig);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &start) && !CPU_COUNT(&one))
			CPU_SET(i, &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	rig_start(&rig, "echo go; read x <&3");
	rig_line(&rig);
	cr_assert_eq(sched_getaffinity(rig.got.child.pid, sizeof(worker), &worker), 0);
	cr_expect(CPU_EQUAL(&worker, &start));
	urd_child_end_input(&rig.got.child);
	rig_end(&rig);
	urd_spawner_stop(rig.sp);
}

Test(spawn, limits_umask_nice_cwd_and_privileges)
{
	struct urd_pool_conf conf = URD_POOL_CONF_INIT;
	struct rig rig;
	char err[128];

	rig_up(&rig);
	conf.umask = 0027;
	conf.nice = getpriority(PRIO_PROCESS, 0) + 3;
	conf.no_new_privs = 1;
	conf.rlimit_nofile = 64;
	conf.rlimit_core = 0;
	conf.rlimit_as = 4ull << 30;
	conf.rlimit_cpu_ns = 1500 * URD_MSEC;
	conf.rlimit_nproc = 4000;
	cr_assert_eq(urd_spawn_conf(&rig.spec, &conf, err, sizeof(err)), 0, "%s", err);
	rig.spec.cwd = "/proc";
	rig_run(&rig, "umask; nice; pwd; grep NoNewPrivs /proc/self/status; cat /proc/self/limits");
	cr_expect(strstr(rig.text, "0027\n"), "%s", rig.text);
	snprintf(err, sizeof(err), "\n%d\n/proc\n", conf.nice);
	cr_expect(strstr(rig.text, err), "%s", rig.text);
	cr_expect(strstr(rig.text, "NoNewPrivs:\t1"), "%s", rig.text);
	cr_expect(strstr(rig.text, "Max open files            64                   64 "));
	cr_expect(strstr(rig.text, "Max core file size        0                    0 "));
	cr_expect(strstr(rig.text, "Max address space         4294967296           4294967296 "));
	cr_expect(strstr(rig.text, "Max cpu time              2                    3 "));
	cr_expect(strstr(rig.text, "Max processes             4000                 4000 "));
	urd_spawner_stop(rig.sp);
}

Test(spawn, what_is_not_asked_for_stays)
{
	struct urd_pool_conf conf = URD_POOL_CONF_INIT;
	struct rlimit soft;
	struct rig rig;
	char text[128];

	umask(0031);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &soft), 0);
	soft.rlim_cur = 777;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &soft), 0);
	rig_up(&rig);
	cr_assert_eq(urd_spawn_conf(&rig.spec, &conf, text, sizeof(text)), 0);
	/* urd raises its own limit afterwards */
	soft.rlim_cur = 1000;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &soft), 0);
	rig_run(&rig, "umask; nice; id -u; id -G; grep NoNewPrivs /proc/self/status; ulimit -Sn; "
		      "ulimit -Hn");
	snprintf(text, sizeof(text), "0031\n%d\n%u\n", getpriority(PRIO_PROCESS, 0), getuid());
	cr_expect_eq(strncmp(rig.text, text, strlen(text)), 0, "%s", rig.text);
	snprintf(text, sizeof(text), "NoNewPrivs:\t%d\n777\n%llu\n",
		 prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), (unsigned long long)soft.rlim_max);
	cr_expect(strstr(rig.text, text), "%s", rig.text);
	urd_spawner_stop(rig.sp);
}

static int oom_read(void)
{
	FILE *f = fopen("/proc/self/oom_score_adj", "r");
	int v = 0;

	cr_assert_not_null(f);
	cr_assert_eq(fscanf(f, "%d", &v), 1);
	fclose(f);
	return v;
}

Test(spawn, workers_go_before_urd_when_memory_runs_out)
{
	struct rig rig;
	int mine = oom_read();

	rig_up(&rig);
	rig_run(&rig, "cat /proc/$$/oom_score_adj");
	cr_expect_eq(number(rig.text), urd_min(mine + 200, 1000), "%s", rig.text);
	rig.spec.set = URD_SPAWN_OOM;
	rig.spec.oom_score_adj = 1000;
	rig_run(&rig, "cat /proc/$$/oom_score_adj");
	cr_expect_eq(number(rig.text), 1000, "%s", rig.text);
	cr_expect_eq(oom_read(), mine, "the parent shares memory with its child, not its score");
	urd_spawner_stop(rig.sp);
}

/* ---- users ---- */

Test(spawn, another_user_with_his_groups)
{
	struct urd_pool_conf conf = URD_POOL_CONF_INIT;
	struct rig rig;
	char text[256];

	only_root();
	rig_up(&rig);
	conf.user = "nobody";
	cr_assert_eq(urd_spawn_conf(&rig.spec, &conf, text, sizeof(text)), 0, "%s", text);
	rig.spec.groups[rig.spec.groups_nr++] = 12345;
	rig_run(&rig,
		"grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff|CapPrm|CapAmb)' /proc/self/status");
	snprintf(text, sizeof(text), "Uid:\t%1$u\t%1$u\t%1$u\t%1$u\n", rig.spec.uid);
	cr_expect(strstr(rig.text, text), "%s", rig.text);
	snprintf(text, sizeof(text), "Gid:\t%1$u\t%1$u\t%1$u\t%1$u\n", rig.spec.gid);
	cr_expect(strstr(rig.text, text), "%s", rig.text);
	/* the kernel sorts them; root's are gone */
	snprintf(text, sizeof(text), "Groups:\t12345 %u \n", rig.spec.gid);
	cr_expect(strstr(rig.text, text), "%s", rig.text);
	cr_expect(strstr(rig.text, "NoNewPrivs:\t1"), "%s", rig.text);
	cr_expect(strstr(rig.text, "CapPrm:\t0000000000000000"), "%s", rig.text);
	cr_expect(strstr(rig.text, "CapEff:\t0000000000000000"), "%s", rig.text);
	cr_expect_eq(getuid(), 0, "only the child has changed");
	cr_expect_eq(prctl(PR_GET_DUMPABLE), 1, "we can still be debugged");
	cr_expect_str_eq(rig.spec.user, "nobody");
	urd_spawner_stop(rig.sp);
}

Test(spawn, numbers_and_groups_alone)
{
	struct urd_pool_conf conf = URD_POOL_CONF_INIT;
	struct rig rig;
	char text[256];

	only_root();
	rig_up(&rig);
	conf.user = "54321";
	conf.group = "54322";
	cr_assert_eq(urd_spawn_conf(&rig.spec, &conf, text, sizeof(text)), 0, "%s", text);
	rig_run(&rig, "id -u; id -g; id -G");
	cr_expect_str_eq(rig.text, "54321\n54322\n54322\n");
	conf.user = NULL;
	cr_assert_eq(urd_spawn_conf(&rig.spec, &conf, text, sizeof(text)), 0, "%s", text);
	rig_run(&rig, "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status");
	cr_expect_str_eq(rig.text, "0\n54322\n54322\nNoNewPrivs:\t0\n");
	urd_spawner_stop(rig.sp);
}

Test(spawn, names_that_do_not_exist)
{
	static const struct {
		const char *user;
		const char *group;
		const char *err;
	} bad[] = {
		{ "no-such-user", NULL,
		  "user: there is no user \"no-such-user\", write a user's name or number" },
		{ "4294967295", NULL,
		  "user: there is no user \"4294967295\", write a user's name or number" },
		{ "54321", NULL, "user: \"54321\" is not in the database of users, set group too" },
		{ "root", "no-such-group",
		  "group: there is no group \"no-such-group\", write a group's name or number" },
		{ NULL, "-1", "group: there is no group \"-1\", write a group's name or number" },
	};
	struct urd_pool_conf conf = URD_POOL_CONF_INIT;
	static struct urd_spawn_spec spec;
	char err[128];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		conf.user = bad[i].user;
		conf.group = bad[i].group;
		cr_expect_eq(urd_spawn_conf(&spec, &conf, err, sizeof(err)), -EINVAL);
		cr_expect_str_eq(err, bad[i].err);
	}
}

Test(spawn, anybody_may_name_himself)
{
	struct urd_pool_conf conf = URD_POOL_CONF_INIT;
	struct rig rig;
	char text[64];

	become_nobody();
	rig_up(&rig);
	snprintf(text, sizeof(text), "%u", getuid());
	conf.user = strdupa(text);
	snprintf(text, sizeof(text), "%u", getgid());
	conf.group = strdupa(text);
	cr_assert_eq(urd_spawn_conf(&rig.spec, &conf, text, sizeof(text)), 0, "%s", text);
	rig_run(&rig, "id -u; grep NoNewPrivs /proc/self/status");
	snprintf(text, sizeof(text), "%u\nNoNewPrivs:\t1\n", getuid());
	cr_expect_str_eq(rig.text, text);
	urd_spawner_stop(rig.sp);
}

/* ---- failures have a step, a value and a reason ---- */

Test(spawn, failures_without_root)
{
	struct rlimit hard;
	struct rig rig;
	u32 fds;

	become_nobody();
	rig_up(&rig);
	fds = fds_open();
	rig.spec.set = URD_SPAWN_IDS;
	rig.spec.uid = 33;
	rig.spec.gid = 33;
	rig.spec.groups_nr = 1;
	fails(&rig, "/bin/sh", "setgroups", EPERM, "of user 33 (user and group need root)");
	rig.spec.set = URD_SPAWN_NICE;
	rig.spec.nice = -20;
	fails(&rig, "/bin/sh", "setpriority", EACCES, "to -20 (less than now needs root)");
	rig.spec.set = URD_SPAWN_OOM;
	rig.spec.oom_score_adj = -1000;
	fails(&rig, "/bin/sh", "write oom_score_adj", EACCES, "-1000 (less than now needs root)");
	rig.spec.set = 0;
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &hard), 0);
	rig.spec.limits_set = 1u << URD_SPAWN_NOFILE;
	rig.spec.limits[URD_SPAWN_NOFILE] = (struct rlimit){ hard.rlim_max + 1, hard.rlim_max + 1 };
	fails(&rig, "/bin/sh", "setrlimit", EPERM, "rlimit_nofile to ");
	fails(&rig, "/bin/sh", "setrlimit", EPERM, "(only root goes above the hard limit, ");
	rig.spec.limits_set = 0;
	cr_expect_eq(fds_open(), fds, "a failed start leaves descriptors behind");
	rig_run(&rig, "echo fine");
	cr_expect_str_eq(rig.text, "fine\n");
	urd_spawner_stop(rig.sp);
}

/* A file that is gone when the test is. */
static void script(char path[64], const char *text)
{
	int fd;

	snprintf(path, 64, "/tmp/urd-test-spawn-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	cr_assert_eq(fchmod(fd, 0755), 0);
	close(fd);
}

Test(spawn, failures_of_anybody)
{
	struct rig rig;
	char path[64];

	rig_up(&rig);
	fails(&rig, "no-such-program", "look up the command", ENOENT, "");
	fails(&rig, "/no/such/program", "execve", ENOENT, "/no/such/program");
	fails(&rig, "/tmp", "execve", EACCES, "/tmp");
	script(path, "#!/no/such/interpreter\n");
	fails(&rig, path, "execve", ENOENT, "(it is there; its interpreter is not)");
	unlink(path);
	rig.spec.cwd = "/no/such/place";
	fails(&rig, "/bin/sh", "chdir", ENOENT, "to /no/such/place");
	urd_spawner_stop(rig.sp);
}

Test(spawn, failures_as_another_user)
{
	struct rig rig;
	char path[64];

	only_root();
	rig_up(&rig);
	rig.spec.set = URD_SPAWN_IDS;
	rig.spec.uid = NOBODY;
	rig.spec.gid = NOBODY;
	script(path, "#!/bin/sh\n");
	cr_assert_eq(chmod(path, 0700), 0);
	fails(&rig, path, "execve", EACCES, "as user 65534");
	cr_expect_eq(prctl(PR_GET_DUMPABLE), 1);
	unlink(path);
	cr_assert_eq(mkdir(path, 0700), 0);
	rig.spec.cwd = path;
	fails(&rig, "/bin/sh", "chdir", EACCES, "as user 65534");
	rmdir(path);
	urd_spawner_stop(rig.sp);
}

/* ---- the end ---- */

static void dies_with_the_thread(bool as_nobody)
{
	struct rig rig;
	siginfo_t info;

	rig_up(&rig);
	if (as_nobody) {
		rig.spec.set = URD_SPAWN_IDS | URD_SPAWN_NO_NEW_PRIVS;
		rig.spec.uid = NOBODY;
		rig.spec.gid = NOBODY;
	}
	rig_start(&rig, "trap '' TERM HUP INT; echo go; exec sleep 1000");
	rig_line(&rig);
	urd_spawner_stop(rig.sp);
	info = rig_end(&rig);
	cr_expect_eq(info.si_code, CLD_KILLED);
	cr_expect_eq(info.si_status, SIGKILL);
}

Test(spawn, a_worker_dies_with_the_thread_that_made_it)
{
	dies_with_the_thread(false);
}

/* The kernel forgets the death signal when the user changes. */
Test(spawn, so_does_one_of_another_user)
{
	only_root();
	dies_with_the_thread(true);
}

static void *thread_ends(void *arg)
{
	rig_start(arg, "echo go; read x <&3; exit 42");
	return NULL;
}

/* Whichever thread asks for a worker may end. */
Test(spawn, a_worker_outlives_the_thread_that_asked)
{
	pthread_t thread;
	struct rig rig;
	siginfo_t info;

	rig_up(&rig);
	cr_assert_eq(pthread_create(&thread, NULL, thread_ends, &rig), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	rig_line(&rig);
	urd_child_end_input(&rig.got.child);
	info = rig_end(&rig);
	cr_expect_eq(info.si_code, CLD_EXITED);
	cr_expect_eq(info.si_status, 42);
	urd_spawner_stop(rig.sp);
}

/* The parent died before the death signal was set: another one is there instead. */
Test(spawn, a_child_of_another_parent_executes_nothing)
{
	static char *argv[] = { (char *)(uintptr_t) "/bin/true", NULL };
	static struct urd_spawn_spec spec;
	struct urd_launch l = { .spec = &spec, .path = "/bin/true", .envp = environment };
	int status;
	pid_t pid;

	spec.argv = argv;
	for (int wrong = 0; wrong < 2; wrong++) {
		l.parent = wrong ? getpid() + 1 : getpid();
		pid = fork();
		if (!pid)
			_exit(urd_launch_child(&l));
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status));
		cr_expect_eq(WEXITSTATUS(status), wrong ? 127 : 0);
	}
}

Test(spawn, killing_reaches_grandchildren)
{
	struct rig rig;
	siginfo_t info;
	int pidfd;

	cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	rig_up(&rig);
	rig_start(&rig, "(trap '' TERM; echo $(exec sh -c 'echo $PPID'); sleep 1000; :) & wait");
	rig_line(&rig);
	pidfd = (int)syscall(SYS_pidfd_open, number(rig.text), 0);
	cr_assert_geq(pidfd, 0, "%s", rig.text);
	urd_child_kill_all(&rig.got.child);
	readable(pidfd, "end of the grandchild");
	info = rig_end(&rig);
	cr_expect_eq(info.si_status, SIGKILL);
	urd_spawner_stop(rig.sp);
}
