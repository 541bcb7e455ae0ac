/* SPDX-License-Identifier: MIT */
/*
 * The child's side of a spawn: what happens between clone() and execve().  The
 * child shares the memory of its parent, which waits; it makes system calls and
 * nothing else.  Only spawn.c and its test use this.
 */
#ifndef URD_SPAWN_CHILD_H
#define URD_SPAWN_CHILD_H

#include "ring/spawn.h"

/** Descriptors that a child may be given, stdin to the last channel. */
#define URD_LAUNCH_FDS 7

/* What may fail, in the order in which it is done. */
#define URD_LAUNCH_STEPS(X)                           \
	X(NONE, "")                                   \
	X(CLONE, "clone")                             \
	X(SETSID, "setsid")                           \
	X(DEATHSIG, "prctl(PR_SET_PDEATHSIG)")        \
	X(DUPFD, "fcntl(F_DUPFD)")                    \
	X(DUP2, "dup2")                               \
	X(CLOSE_RANGE, "close_range")                 \
	X(RLIMIT, "setrlimit")                        \
	X(NICE, "setpriority")                        \
	X(OOM, "write oom_score_adj")                 \
	X(SETGROUPS, "setgroups")                     \
	X(SETGID, "setgid")                           \
	X(SETUID, "setuid")                           \
	X(CHDIR, "chdir")                             \
	X(NO_NEW_PRIVS, "prctl(PR_SET_NO_NEW_PRIVS)") \
	X(EXECVE, "execve")

/** enum urd_launch_step - what may fail */
#define URD_LAUNCH_STEP(n, t) LAUNCH_##n,
enum urd_launch_step { URD_LAUNCH_STEPS(URD_LAUNCH_STEP) };
#undef URD_LAUNCH_STEP

/**
 * struct urd_launch - what a child needs; lives with the parent while it is made
 * @spec: how
 * @path: program to execute
 * @envp: its environment
 * @parent: pid of the process that makes it
 * @oom_score_adj: text to write, or "" to leave it
 * @fds: child's end of each descriptor, -1 for none
 * @fds_nr: how many
 * @err: set by the child: errno of what failed
 * @step: set by the child: what that was
 * @limit: set by the child: which limit, for LAUNCH_RLIMIT
 */
struct urd_launch {
	const struct urd_spawn_spec *spec;
	const char *path;
	char *const *envp;
	pid_t parent;
	char oom_score_adj[8];
	int fds[URD_LAUNCH_FDS];
	u32 fds_nr;
	volatile int err;
	volatile enum urd_launch_step step;
	volatile u32 limit;
};

/**
 * urd_launch_child - become a worker
 * @arg: a struct urd_launch
 *
 * Runs in the child, on a stack of its own; ends in the worker's program or in
 * exit status 127.
 */
int urd_launch_child(void *arg);

/** urd_launch_step_name - what failed, a static string */
const char *urd_launch_step_name(const struct urd_launch *l);

/** urd_launch_explain - with which value, and what would help; "" if there is nothing to say */
void urd_launch_explain(const struct urd_launch *l, char *buf, size_t len);

#endif /* URD_SPAWN_CHILD_H */
