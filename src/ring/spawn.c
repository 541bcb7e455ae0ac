// SPDX-License-Identifier: MIT
/*
 * The spawner thread.  Children are made with clone(VM | VFORK | PIDFD): no page
 * tables are copied, and the pidfd is there before the process can end.  The
 * child runs on a stack of its own and only makes system calls until it execs
 * (spawn_child.c).
 */
#include "ring/spawn_child.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* Of the vfork child: it calls nothing deep. */
#define CHILD_STACK (128u << 10)
/* Bytes of requests that may wait for the spawner: 40,000 of them. */
#define ASK_PIPE (1u << 20)
/* Workers are to go before urd itself when memory runs out. */
#define OOM_ABOVE 200
#define OOM_MAX 1000

/*
 * While a child has changed its user and still shares our memory, we must not be
 * debuggable, or others of that user could write into it.  The kernel sees to it,
 * for good; we undo it, one child of the process at a time.
 */
static pthread_mutex_t ids_lock = PTHREAD_MUTEX_INITIALIZER;

struct urd_spawner {
	pthread_t thread;
	int ask[2];
	int answer[2];
	pid_t pid;	       /* ours: what a child expects as its parent */
	char oom_score_adj[8]; /* of children by default; "" if it cannot be told */
	u8 *stack;
};

/* Look @name up in PATH as execvp() would, but in the parent. */
static int find_program(const char *name, const char *cwd, char path[PATH_MAX])
{
	const char *dirs = getenv("PATH");
	int err = ENOENT;

	if (strchr(name, '/')) {
		/* relative to where the worker will be */
		if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
			return -ENAMETOOLONG;
		(void)cwd;
		return 0;
	}
	if (!dirs || !*dirs)
		dirs = "/usr/local/bin:/usr/bin:/bin";
	while (*dirs) {
		size_t n = strcspn(dirs, ":");
		struct stat st;

		if (snprintf(path, PATH_MAX, "%.*s/%s", n ? (int)n : 1, n ? dirs : ".", name) <
			    PATH_MAX &&
		    stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(path, X_OK) == 0)
				return 0;
			err = EACCES;
		}
		dirs += n;
		dirs += *dirs == ':';
	}
	return -err;
}

/* A pair of connected descriptors, ours [0] and the worker's [1]. */
static int make_pair(int pair[2], enum urd_protocol protocol, bool to_worker)
{
	int p[2];

	if (protocol == URD_PROTOCOL_FOLK) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return -errno;
	} else {
		if (pipe2(p, O_CLOEXEC) < 0)
			return -errno;
		pair[0] = p[to_worker ? 1 : 0];
		pair[1] = p[to_worker ? 0 : 1];
	}
	/* of our end only: the flag belongs to the open file, not to the channel */
	if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Make all channels; on failure what was made is in @c and @l for the caller to close. */
static int make_channels(const struct urd_spawn_spec *spec, struct urd_child *c,
			 struct urd_launch *l)
{
	bool folk = spec->protocol == URD_PROTOCOL_FOLK;
	int *ours[] = { &c->task_wr, &c->task_rd, &c->ctl_wr, &c->ctl_rd };
	int pair[2];
	int ret;

	l->fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (l->fds[0] < 0)
		return -errno;
	for (u32 i = 1; i <= 2; i++) {
		ret = make_pair(pair, URD_PROTOCOL_URD, false);
		if (ret)
			return ret;
		*(i == 1 ? &c->out_rd : &c->err_rd) = pair[0];
		l->fds[i] = pair[1];
	}
	l->fds_nr = 3;
	for (u32 i = 0; i < 4; i += folk ? 2 : 1) {
		ret = make_pair(pair, spec->protocol, i % 2 == 0);
		if (ret)
			return ret;
		*ours[i] = pair[0];
		if (folk)
			*ours[i + 1] = pair[0];
		l->fds[l->fds_nr++] = pair[1];
	}
	return 0;
}

static int launch(struct urd_spawner *sp, struct urd_launch *l, struct urd_child *c)
{
	bool ids = l->spec->set & URD_SPAWN_IDS;
	int dumpable = 0;
	siginfo_t info;
	int pidfd = -1;
	int pid;

	if (ids) {
		pthread_mutex_lock(&ids_lock);
		dumpable = prctl(PR_GET_DUMPABLE);
	}
	pid = clone(urd_launch_child, sp->stack + CHILD_STACK,
		    CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, l, &pidfd);
	if (pid < 0) {
		l->step = LAUNCH_CLONE;
		l->err = errno;
	}
	if (ids) {
		if (dumpable == 1)
			(void)prctl(PR_SET_DUMPABLE, 1);
		pthread_mutex_unlock(&ids_lock);
	}
	if (pid < 0)
		return -l->err;
	if (l->err) {
		(void)waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
		close(pidfd);
		return -l->err;
	}
	c->pid = pid;
	c->pidfd = pidfd;
	return 0;
}

/* The environment of a child: that of its pool, and its number. */
static void make_env(const struct urd_spawn_ask *ask, char **envp, char *number, size_t len)
{
	const struct urd_spawn_spec *spec = ask->spec;

	urd_assert(spec->envp_nr <= URD_SPAWN_ENV_MAX);
	memcpy(envp, spec->envp, spec->envp_nr * sizeof(*envp));
	snprintf(number, len, "URD_WORKER=%u", ask->worker);
	envp[spec->envp_nr] = number;
	envp[spec->envp_nr + 1] = NULL;
}

static void spawn_one(struct urd_spawner *sp, const struct urd_spawn_ask *ask,
		      struct urd_spawned *res)
{
	const struct urd_spawn_spec *spec = ask->spec;
	struct urd_launch l = { .spec = spec, .parent = sp->pid };
	char *envp[URD_SPAWN_ENV_MAX + 2];
	char path[PATH_MAX], number[32];

	memset(res, 0, sizeof(*res));
	res->slot = ask->slot;
	res->child = (struct urd_child){ 0, -1, -1, -1, -1, -1, -1, -1 };
	memset(l.fds, -1, sizeof(l.fds));
	make_env(ask, envp, number, sizeof(number));
	l.envp = envp;
	l.path = path;
	if (spec->set & URD_SPAWN_OOM)
		snprintf(l.oom_score_adj, sizeof(l.oom_score_adj), "%d", spec->oom_score_adj);
	else
		memcpy(l.oom_score_adj, sp->oom_score_adj, sizeof(l.oom_score_adj));

	res->step = "look up the command";
	res->err = find_program(spec->argv[0], spec->cwd, path);
	if (!res->err) {
		res->step = "make channels";
		res->err = make_channels(spec, &res->child, &l);
	}
	if (!res->err) {
		res->err = launch(sp, &l, &res->child);
		res->step = urd_launch_step_name(&l);
		if (res->err)
			urd_launch_explain(&l, res->detail, sizeof(res->detail));
	}
	for (u32 i = 0; i < URD_LAUNCH_FDS; i++)
		close_fd(&l.fds[i]);
	if (res->err)
		urd_child_close(&res->child);
	else
		res->step = NULL;
}

/* What workers get by default: a bit more likely to be killed than we are. */
static void oom_default(struct urd_spawner *sp)
{
	char text[16];
	ssize_t n = -1;
	int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (n <= 0)
		return;
	text[n] = '\0';
	n = urd_min(strtol(text, NULL, 10) + OOM_ABOVE, (long)OOM_MAX);
	snprintf(sp->oom_score_adj, sizeof(sp->oom_score_adj), "%d", (int)n);
}

static void *spawner_thread(void *arg)
{
	struct urd_spawner *sp = arg;
	struct urd_spawn_ask ask;
	struct urd_spawned res;
	ssize_t n;

	for (;;) {
		do
			n = read(sp->ask[0], &ask, sizeof(ask));
		while (n < 0 && errno == EINTR);
		if (n != sizeof(ask))
			break; /* the other end was closed: urd_spawner_stop() */
		spawn_one(sp, &ask, &res);
		do
			n = write(sp->answer[1], &res, sizeof(res));
		while (n < 0 && errno == EINTR);
		urd_assert(n == sizeof(res)); /* atomic: shorter than PIPE_BUF */
	}
	return NULL;
}

int urd_spawner_start(struct urd_spawner **spp)
{
	struct urd_spawner *sp = calloc(1, sizeof(*sp));
	sigset_t all, old;
	int ret = -ENOMEM;

	static_assert(sizeof(struct urd_spawned) <= 512, "an answer is written atomically");
	if (!sp)
		return -ENOMEM;
	sp->pid = getpid();
	oom_default(sp);
	sp->stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (sp->stack == MAP_FAILED)
		goto out_free;
	if (pipe2(sp->ask, O_CLOEXEC) < 0) {
		ret = -errno;
		goto out_unmap;
	}
	if (pipe2(sp->answer, O_CLOEXEC) < 0) {
		ret = -errno;
		goto out_close_ask;
	}
	(void)fcntl(sp->ask[1], F_SETPIPE_SZ, ASK_PIPE);
	fcntl(sp->ask[1], F_SETFL, O_NONBLOCK);
	fcntl(sp->answer[0], F_SETFL, O_NONBLOCK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&sp->thread, NULL, spawner_thread, sp);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		goto out_close_answer;
	*spp = sp;
	return 0;

out_close_answer:
	close(sp->answer[0]);
	close(sp->answer[1]);
out_close_ask:
	close(sp->ask[0]);
	close(sp->ask[1]);
out_unmap:
	munmap(sp->stack, CHILD_STACK);
out_free:
	free(sp);
	return ret;
}

void urd_spawner_stop(struct urd_spawner *sp)
{
	struct urd_spawned res;

	if (!sp)
		return;
	close(sp->ask[1]);
	pthread_join(sp->thread, NULL);
	/* nobody asked for these any more */
	while (read(sp->answer[0], &res, sizeof(res)) == sizeof(res))
		urd_child_close(&res.child);
	close(sp->ask[0]);
	close(sp->answer[0]);
	close(sp->answer[1]);
	munmap(sp->stack, CHILD_STACK);
	free(sp);
}

int urd_spawner_fd(const struct urd_spawner *sp)
{
	return sp->answer[0];
}

int urd_spawner_ask(struct urd_spawner *sp, const struct urd_spawn_ask *ask)
{
	ssize_t n = write(sp->ask[1], ask, sizeof(*ask));

	if (n < 0)
		return -errno;
	urd_assert(n == sizeof(*ask));
	return 0;
}

void urd_child_signal(const struct urd_child *c, int sig)
{
	if (c->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0);
}

void urd_child_kill_all(const struct urd_child *c)
{
	urd_child_signal(c, SIGKILL);
	if (c->pid > 1)
		(void)kill(-c->pid, SIGKILL);
}

int urd_child_reap(const struct urd_child *c, siginfo_t *info)
{
	memset(info, 0, sizeof(*info));
	if (waitid(P_PIDFD, (id_t)c->pidfd, info, WEXITED | WNOHANG) < 0)
		return -errno;
	return info->si_pid ? 0 : -EAGAIN;
}

void urd_child_end_input(struct urd_child *c)
{
	if (c->task_wr >= 0 && c->task_wr == c->task_rd)
		(void)shutdown(c->task_wr, SHUT_WR);
	else
		close_fd(&c->task_wr);
}

void urd_child_close(struct urd_child *c)
{
	if (c->task_rd == c->task_wr)
		c->task_rd = -1;
	if (c->ctl_rd == c->ctl_wr)
		c->ctl_rd = -1;
	close_fd(&c->task_wr);
	close_fd(&c->task_rd);
	close_fd(&c->ctl_wr);
	close_fd(&c->ctl_rd);
	close_fd(&c->out_rd);
	close_fd(&c->err_rd);
	close_fd(&c->pidfd);
	c->pid = 0;
}
