// SPDX-License-Identifier: MIT
/*
 * Between clone() and execve().  The order matters: what root may do comes before
 * the change of user, and that change makes the kernel forget the death signal,
 * which therefore is set twice.  Changes of user are raw system calls, because the
 * C library's would be carried out by every thread of the parent.
 */
#include "ring/spawn_child.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int limit_resources[URD_SPAWN_LIMITS] = {
	[URD_SPAWN_NOFILE] = RLIMIT_NOFILE, [URD_SPAWN_CORE] = RLIMIT_CORE,
	[URD_SPAWN_AS] = RLIMIT_AS,	    [URD_SPAWN_CPU] = RLIMIT_CPU,
	[URD_SPAWN_NPROC] = RLIMIT_NPROC,
};

static const char *const limit_names[URD_SPAWN_LIMITS] = {
	[URD_SPAWN_NOFILE] = "rlimit_nofile", [URD_SPAWN_CORE] = "rlimit_core",
	[URD_SPAWN_AS] = "rlimit_as",	      [URD_SPAWN_CPU] = "rlimit_cpu",
	[URD_SPAWN_NPROC] = "rlimit_nproc",
};

/* ---- in the child ---- */

/*
 * None of these returns to where its frame would be cleaned up, and the next child
 * has the same stack: sanitizers must keep no books of it.
 */
#define IN_CHILD __attribute__((no_sanitize_address, no_sanitize_thread))

IN_CHILD __attribute__((noreturn)) static void child_fail(struct urd_launch *l,
							  enum urd_launch_step step)
{
	l->err = errno;
	l->step = step;
	_exit(127);
}

/* From here on we die with the thread that made us; before, we may have missed its end. */
IN_CHILD static void child_bind(struct urd_launch *l)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		child_fail(l, LAUNCH_DEATHSIG);
	if (getppid() != l->parent)
		_exit(127);
}

IN_CHILD static void child_signals(void)
{
	/* what the kernel calls struct sigaction; the library keeps 32 and 33 from us */
	static const struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		u64 mask;
	} dfl;

	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void)syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(u64));
}

/* Put the ends where the worker expects them, whatever numbers they have now. */
IN_CHILD static void child_fds(struct urd_launch *l)
{
	int fds[URD_LAUNCH_FDS]; /* a copy: the parent shares our memory, not our descriptors */

	for (u32 i = 0; i < l->fds_nr; i++) {
		/* first all out of the way of all, then each to its place */
		fds[i] = fcntl(l->fds[i], F_DUPFD_CLOEXEC, 2 * URD_LAUNCH_FDS);
		if (fds[i] < 0)
			child_fail(l, LAUNCH_DUPFD);
	}
	for (u32 i = 0; i < l->fds_nr; i++)
		if (dup2(fds[i], (int)i) < 0)
			child_fail(l, LAUNCH_DUP2);
	if (syscall(SYS_close_range, l->fds_nr, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		child_fail(l, LAUNCH_CLOSE_RANGE);
}

IN_CHILD static void child_oom(struct urd_launch *l)
{
	ssize_t len = (ssize_t)strlen(l->oom_score_adj);
	bool asked = l->spec->set & URD_SPAWN_OOM;
	int fd;

	if (!len)
		return;
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, l->oom_score_adj, (size_t)len) != len) {
		if (asked)
			child_fail(l, LAUNCH_OOM);
	}
	if (fd >= 0)
		close(fd);
}

IN_CHILD static void child_resources(struct urd_launch *l)
{
	const struct urd_spawn_spec *spec = l->spec;

	for (u32 i = 0; i < URD_SPAWN_LIMITS; i++) {
		l->limit = i;
		if ((spec->limits_set & 1u << i) &&
		    setrlimit((__rlimit_resource_t)limit_resources[i], &spec->limits[i]) < 0)
			child_fail(l, LAUNCH_RLIMIT);
	}
	if ((spec->set & URD_SPAWN_NICE) && setpriority(PRIO_PROCESS, 0, spec->nice) < 0)
		child_fail(l, LAUNCH_NICE);
	child_oom(l);
	if (spec->set & URD_SPAWN_UMASK)
		umask(spec->umask);
}

IN_CHILD static void child_ids(struct urd_launch *l)
{
	const struct urd_spawn_spec *spec = l->spec;

	if (!(spec->set & URD_SPAWN_IDS))
		return;
	if (syscall(SYS_setgroups, spec->groups_nr, spec->groups) < 0)
		child_fail(l, LAUNCH_SETGROUPS);
	if (syscall(SYS_setresgid, spec->gid, spec->gid, spec->gid) < 0)
		child_fail(l, LAUNCH_SETGID);
	if (syscall(SYS_setresuid, spec->uid, spec->uid, spec->uid) < 0)
		child_fail(l, LAUNCH_SETUID);
	/* an urd that may do this without being root must not pass that on */
	if (spec->uid)
		(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	child_bind(l);
}

IN_CHILD int urd_launch_child(void *arg)
{
	struct urd_launch *l = arg;
	const struct urd_spawn_spec *spec = l->spec;
	sigset_t none;

	if (setsid() < 0)
		child_fail(l, LAUNCH_SETSID);
	child_bind(l);
	child_signals();
	child_fds(l);
	child_resources(l);
	child_ids(l);
	if (spec->cwd && chdir(spec->cwd) < 0)
		child_fail(l, LAUNCH_CHDIR);
	if ((spec->set & URD_SPAWN_NO_NEW_PRIVS) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		child_fail(l, LAUNCH_NO_NEW_PRIVS);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(l->path, spec->argv, l->envp);
	child_fail(l, LAUNCH_EXECVE);
}

/* ---- in the parent: what went wrong ---- */

const char *urd_launch_step_name(const struct urd_launch *l)
{
#define STEP_NAME(n, t) t,
	static const char *const names[] = { URD_LAUNCH_STEPS(STEP_NAME) };
#undef STEP_NAME

	return names[l->step];
}

static void explain_limit(const struct urd_launch *l, char *buf, size_t len)
{
	const struct rlimit *want = &l->spec->limits[l->limit];
	const char *name = limit_names[l->limit];
	struct rlimit have = { 0, 0 };

	(void)getrlimit((__rlimit_resource_t)limit_resources[l->limit], &have);
	if (l->err == EPERM && want->rlim_cur == RLIM_INFINITY)
		snprintf(buf, len, "%s to unlimited (only root goes above the hard limit, %llu)",
			 name, (unsigned long long)have.rlim_max);
	else if (l->err == EPERM)
		snprintf(buf, len, "%s to %llu (only root goes above the hard limit, %llu)", name,
			 (unsigned long long)want->rlim_cur, (unsigned long long)have.rlim_max);
	else
		snprintf(buf, len, "%s to %llu", name, (unsigned long long)want->rlim_cur);
}

static void explain_exec(const struct urd_launch *l, char *buf, size_t len)
{
	struct stat st;

	if (l->err == EAGAIN)
		snprintf(buf, len, "%s (the user has as many processes as rlimit_nproc allows)",
			 l->path);
	else if (l->err == ENOENT && !l->spec->cwd && stat(l->path, &st) == 0)
		snprintf(buf, len, "%s (it is there; its interpreter is not)", l->path);
	else if (l->err == EACCES && (l->spec->set & URD_SPAWN_IDS))
		snprintf(buf, len, "%s as user %u", l->path, l->spec->uid);
	else
		snprintf(buf, len, "%s", l->path);
}

void urd_launch_explain(const struct urd_launch *l, char *buf, size_t len)
{
	const struct urd_spawn_spec *spec = l->spec;
	const char *root = l->err == EPERM ? " (user and group need root)" : "";

	buf[0] = '\0';
	if (l->step == LAUNCH_RLIMIT)
		explain_limit(l, buf, len);
	else if (l->step == LAUNCH_NICE)
		snprintf(buf, len, "to %d%s", spec->nice,
			 l->err == EACCES || l->err == EPERM ? " (less than now needs root)" : "");
	else if (l->step == LAUNCH_OOM)
		snprintf(buf, len, "%s%s", l->oom_score_adj,
			 l->err == EACCES ? " (less than now needs root)" : "");
	else if (l->step == LAUNCH_SETGROUPS)
		snprintf(buf, len, "of user %u%s", spec->uid, root);
	else if (l->step == LAUNCH_SETGID)
		snprintf(buf, len, "to %u%s", spec->gid, root);
	else if (l->step == LAUNCH_SETUID)
		snprintf(buf, len, "to %u%s", spec->uid, root);
	else if (l->step == LAUNCH_CHDIR && (spec->set & URD_SPAWN_IDS))
		snprintf(buf, len, "to %s as user %u", spec->cwd, spec->uid);
	else if (l->step == LAUNCH_CHDIR)
		snprintf(buf, len, "to %s", spec->cwd);
	else if (l->step == LAUNCH_EXECVE)
		explain_exec(l, buf, len);
}
