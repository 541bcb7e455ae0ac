// SPDX-License-Identifier: MIT
/*
 * Starting, asking and stopping a urd for a test, and reading of its workers in
 * /proc.
 */
#include "lib/daemon.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire/mp.h"

#define ARGS_MAX 64

u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / NSEC_PER_MSEC;
}

void nap(void)
{
	poll(NULL, 0, 2);
}

/* ---- processes ---- */

/* State and parent from /proc/PID/stat; false if there is none. */
static bool stat_read(pid_t pid, char *state, pid_t *parent)
{
	char path[64], text[512];
	const char *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p || p[1] != ' ' || !p[2])
		return false;
	*state = p[2];
	*parent = (pid_t)strtol(p + 3, NULL, 10);
	return true;
}

bool pid_lives(pid_t pid)
{
	char state;
	pid_t parent;

	return stat_read(pid, &state, &parent) && state != 'Z' && state != 'X';
}

bool pid_is_reaped(pid_t pid)
{
	char state;
	pid_t parent;

	return !stat_read(pid, &state, &parent);
}

u32 workers_of(pid_t parent, pid_t *pids, u32 max)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	u32 n = 0;

	cr_assert_not_null(dir);
	while ((e = readdir(dir)) && n < max) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		pid_t of;
		char state;

		if (pid > 0 && stat_read(pid, &state, &of) && of == parent && state != 'Z')
			pids[n++] = pid;
	}
	closedir(dir);
	return n;
}

/* ---- the daemon ---- */

static void daemon_exec(const struct daemon *d, char *const *argv)
{
	int fd = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	/* whatever becomes of the test, its urd is not to stay */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, 1);
	dup2(fd, 2);
	close(fd);
	execv(argv[0], argv);
	_exit(127);
}

static bool client_try(struct daemon *d)
{
	char address[128];

	snprintf(address, sizeof(address), "unix:%s", d->sock);
	return urd_client_open(address, &d->client) == 0;
}

void daemon_start(struct daemon *d, const char *const *opts, const char *const *command)
{
	static char program[] = URD_BUILD_DIR "/urd", run[] = "run", option[] = "-o", end[] = "--";
	char *argv[ARGS_MAX];
	char listen[128];
	u32 n = 0;

	snprintf(d->dir, sizeof(d->dir), "/tmp/urd-e2e-XXXXXX");
	cr_assert_not_null(mkdtemp(d->dir));
	snprintf(d->sock, sizeof(d->sock), "%s/s", d->dir);
	snprintf(d->log, sizeof(d->log), "%s/log", d->dir);
	snprintf(listen, sizeof(listen), "listen=unix:%s", d->sock);
	argv[n++] = program;
	argv[n++] = run;
	argv[n++] = option;
	argv[n++] = listen;
	for (; opts && *opts; opts++) {
		argv[n++] = option;
		argv[n++] = (char *)(uintptr_t)*opts;
	}
	argv[n++] = end;
	for (; *command; command++)
		argv[n++] = (char *)(uintptr_t)*command;
	argv[n] = NULL;
	cr_assert_lt(n, ARGS_MAX);
	d->pid = fork();
	cr_assert_geq(d->pid, 0);
	if (d->pid == 0)
		daemon_exec(d, argv);
	if (!d->silent)
		await(client_try(d));
}

int daemon_reap(struct daemon *d)
{
	u64 end = now_ms() + PATIENCE_MS;
	int status;
	pid_t pid;

	while ((pid = waitpid(d->pid, &status, WNOHANG)) == 0) {
		cr_assert_lt(now_ms(), end, "urd does not end");
		nap();
	}
	cr_assert_eq(pid, d->pid);
	d->pid = 0;
	return status;
}

static void daemon_remove(const struct daemon *d)
{
	cr_expect_neq(access(d->sock, F_OK), 0, "the socket file is left");
	unlink(d->sock);
	unlink(d->log);
	rmdir(d->dir);
}

void daemon_stop(struct daemon *d)
{
	pid_t pids[WORKERS_MAX];
	u32 n = workers_of(d->pid, pids, WORKERS_MAX);
	int status;

	urd_client_close(d->client);
	d->client = NULL;
	kill(d->pid, SIGTERM);
	status = daemon_reap(d);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "urd ended with status %x",
		  (unsigned int)status);
	for (u32 i = 0; i < n; i++)
		cr_expect_not(pid_lives(pids[i]), "a worker is left");
	daemon_remove(d);
}

bool daemon_logged(const struct daemon *d, const char *text)
{
	int fd = open(d->log, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool found;
	char *all;

	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	all = malloc((size_t)st.st_size + 1);
	cr_assert_not_null(all);
	st.st_size = read(fd, all, (size_t)st.st_size);
	close(fd);
	all[st.st_size > 0 ? st.st_size : 0] = 0;
	found = strstr(all, text) != NULL;
	free(all);
	return found;
}

/* ---- values ---- */

struct value value_number(u64 n)
{
	struct value v = { .p = { 0xcf }, .len = 9 };

	put_be32(v.p + 1, (u32)(n >> 32));
	put_be32(v.p + 5, (u32)n);
	return v;
}

struct value value_text(const char *s)
{
	struct value v = { .len = (u32)strlen(s) + 2 };

	cr_assert_leq(v.len, sizeof(v.p));
	v.p[0] = 0xd9;
	v.p[1] = (u8)(v.len - 2);
	memcpy(v.p + 2, s, v.len - 2);
	return v;
}

u64 answer_number(const struct urd_answer *a)
{
	const u8 *p = a->result;
	struct urd_mp m = { p, p + a->result_len };
	u64 n = 0;

	cr_assert_eq(urd_mp_uint(&m, &n), 0, "the answer is no number");
	return n;
}

bool answer_is(const struct urd_answer *a, struct value v)
{
	return a->code == URD_OK && a->result_len == v.len && !memcmp(a->result, v.p, v.len);
}

/* ---- calls ---- */

struct urd_answer call(struct daemon *d, const char *method, struct value v)
{
	const struct urd_client_opts opts = { .deadline_ms = 0 };
	struct urd_answer a;
	int ret = urd_client_call(d->client, method, v.p, v.len, &opts, &a);

	cr_assert_eq(ret, 0, "%s: %s", method, strerror(-ret));
	return a;
}

struct urd_answer call_ok(struct daemon *d, const char *method, struct value v)
{
	struct urd_answer a = call(d, method, v);

	cr_assert_eq(a.code, URD_OK, "%s: %s: %s", method, urd_code_name(a.code), a.message);
	return a;
}

pid_t worker_pid(struct daemon *d)
{
	struct urd_answer a = call_ok(d, "pid", value_number(0));

	return (pid_t)answer_number(&a);
}

void must_echo(struct daemon *d, const char *text)
{
	struct urd_answer a = call_ok(d, "echo", value_text(text));

	cr_assert(answer_is(&a, value_text(text)), "another answer than \"%s\"", text);
}

u32 post(struct urd_client *c, const char *method, struct value v)
{
	u32 msgid;

	cr_assert_eq(urd_client_send(c, method, v.p, v.len, NULL, &msgid), 0);
	return msgid;
}

void push(struct urd_client *c)
{
	u64 end = now_ms() + PATIENCE_MS;
	struct urd_answer a;

	do {
		struct pollfd pfd = { urd_client_fd(c), POLLOUT, 0 };

		cr_assert_lt(now_ms(), end, "the request does not go out");
		cr_assert_eq(urd_client_turn(c, &a), 0, "an answer came before it was asked for");
		if (urd_client_events(c) & POLLOUT)
			poll(&pfd, 1, 100);
	} while (urd_client_events(c) & POLLOUT);
}

struct urd_answer take(struct urd_client *c)
{
	u64 end = now_ms() + PATIENCE_MS;
	struct urd_answer a;
	int ret;

	while ((ret = urd_client_turn(c, &a)) == 0) {
		struct pollfd pfd = { urd_client_fd(c), urd_client_events(c), 0 };

		cr_assert_lt(now_ms(), end, "no answer");
		poll(&pfd, 1, 100);
	}
	cr_assert_eq(ret, 1, "the connection ended: %s", strerror(-ret));
	return a;
}

struct urd_client *client_new(const struct daemon *d)
{
	struct urd_client *c;
	char address[128];

	snprintf(address, sizeof(address), "unix:%s", d->sock);
	cr_assert_eq(urd_client_open(address, &c), 0);
	return c;
}
