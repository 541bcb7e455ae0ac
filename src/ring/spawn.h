/* SPDX-License-Identifier: MIT */
/*
 * Processes: a thread that does nothing but spawn, and the few calls that end a
 * process and collect it.
 *
 * The thread lives as long as the spawner, because a child's death signal is
 * tied to the thread that made it, and because even a vfork stops its caller
 * for 100 us, which no ring thread can afford.  Requests and answers are small
 * messages through pipes: no lock, no shared state.
 */
#ifndef URD_SPAWN_H
#define URD_SPAWN_H

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <urd/urd.h>

#include "base/base.h"

/** Environment variables that a worker may be given. */
#define URD_SPAWN_ENV_MAX 1024u

/** Groups that a worker may be in. */
#define URD_SPAWN_GROUPS_MAX 1024u

struct urd_spawner;

/** enum urd_spawn_limit - limits of the kernel that a worker may be given */
enum urd_spawn_limit {
	URD_SPAWN_NOFILE,
	URD_SPAWN_CORE,
	URD_SPAWN_AS,
	URD_SPAWN_CPU,
	URD_SPAWN_NPROC,
	URD_SPAWN_LIMITS,
};

/* What of a struct urd_spawn_spec is set; what is not is as in urd itself. */
#define URD_SPAWN_IDS (1u << 0)
#define URD_SPAWN_UMASK (1u << 1)
#define URD_SPAWN_NICE (1u << 2)
#define URD_SPAWN_OOM (1u << 3)
#define URD_SPAWN_NO_NEW_PRIVS (1u << 4)

/**
 * struct urd_spawn_spec - how to start the workers of a pool; constant while in use
 * @argv: program and arguments
 * @envp: "NAME=value" strings, NULL-terminated, the worker's number not among them
 * @envp_nr: how many
 * @cwd: working directory or NULL
 * @protocol: which descriptors it gets
 * @set: URD_SPAWN_ bits: which of the following are set
 * @umask: with URD_SPAWN_UMASK
 * @nice: with URD_SPAWN_NICE
 * @oom_score_adj: with URD_SPAWN_OOM; without it, 200 above our own if we may
 * @uid: with URD_SPAWN_IDS, as all below it but the limits
 * @gid: its group
 * @groups: all its groups, @groups_nr of them
 * @user: name of @uid, or ""
 * @home: its home directory, or ""
 * @limits_set: bit per enum urd_spawn_limit
 * @limits: by enum urd_spawn_limit, those of @limits_set
 *
 * All zero from @set on means a worker that is what urd is.
 */
struct urd_spawn_spec {
	char **argv;
	char **envp;
	u32 envp_nr;
	const char *cwd;
	enum urd_protocol protocol;
	u32 set;
	mode_t umask;
	s32 nice;
	s32 oom_score_adj;
	uid_t uid;
	gid_t gid;
	u32 groups_nr;
	gid_t groups[URD_SPAWN_GROUPS_MAX];
	char user[256];
	char home[1024];
	u32 limits_set;
	struct rlimit limits[URD_SPAWN_LIMITS];
};

/**
 * struct urd_spawn_ask - "make one": to the spawner
 * @spec: how
 * @slot: number of the slot, comes back in the answer
 * @worker: number of the worker within its pool, for its environment
 */
struct urd_spawn_ask {
	const struct urd_spawn_spec *spec;
	u32 slot;
	u32 worker;
};

/**
 * struct urd_child - a process and our ends of its channels
 * @pid: process id, also of its session and process group
 * @pidfd: pollable for its exit
 * @task_wr: requests go in here
 * @task_rd: answers come out; the same descriptor as @task_wr for a socket
 * @ctl_wr: control to the worker
 * @ctl_rd: control from it; the same as @ctl_wr for a socket
 * @out_rd: its stdout
 * @err_rd: its stderr
 *
 * All are CLOEXEC and non-blocking; -1 where there is none.
 */
struct urd_child {
	pid_t pid;
	int pidfd;
	int task_wr;
	int task_rd;
	int ctl_wr;
	int ctl_rd;
	int out_rd;
	int err_rd;
};

/**
 * struct urd_spawned - answer of the spawner
 * @slot: as asked
 * @err: 0 or negative errno
 * @step: what failed, a static string; NULL on success
 * @detail: with which value, and what would help; may be ""
 * @child: the process, on success
 */
struct urd_spawned {
	u32 slot;
	s32 err;
	const char *step;
	char detail[128];
	struct urd_child child;
};

/**
 * urd_spawn_conf - put the isolation that a pool asks for into a spec
 * @spec: filled in from @set on
 * @conf: where from; names of users and groups are looked up
 * @err: "KEY: what is wrong", on failure
 * @len: its size
 *
 * Takes the limit of open files that workers get by default from this process, so
 * it must come before urd raises its own.
 *
 * Context: start-up only.  Return: 0 or -EINVAL.
 */
int urd_spawn_conf(struct urd_spawn_spec *spec, const struct urd_pool_conf *conf, char *err,
		   size_t len) URD_MUST_CHECK;

/**
 * urd_spawner_start - start the thread
 * @sp: set to the spawner
 *
 * Workers may run on the CPUs that the calling thread has now: pin it later.
 *
 * Return: 0 or negative errno.
 */
int urd_spawner_start(struct urd_spawner **sp) URD_MUST_CHECK;

/**
 * urd_spawner_stop - end the thread; workers that still live are killed by that
 *
 * NULL is fine.
 */
void urd_spawner_stop(struct urd_spawner *sp);

/** urd_spawner_fd - whole struct urd_spawned can be read here, never a part of one */
int urd_spawner_fd(const struct urd_spawner *sp);

/**
 * urd_spawner_ask - ask for a process
 *
 * Context: any thread.  Return: 0, -EAGAIN (too many asked for at once).
 */
int urd_spawner_ask(struct urd_spawner *sp, const struct urd_spawn_ask *ask) URD_MUST_CHECK;

/** urd_child_signal - signal the process itself; harmless if it has ended */
void urd_child_signal(const struct urd_child *c, int sig);

/**
 * urd_child_kill_all - SIGKILL for the process and its whole group
 *
 * Only before it is reaped: afterwards the number may be another's.
 */
void urd_child_kill_all(const struct urd_child *c);

/**
 * urd_child_reap - collect an ended process
 * @c: the process
 * @info: filled in as by waitid(2)
 *
 * Return: 0, -EAGAIN (alive, or dead and held by a tracer), -ECHILD (not ours to collect).
 */
int urd_child_reap(const struct urd_child *c, siginfo_t *info) URD_MUST_CHECK;

/**
 * urd_child_rss - resident memory of the process now, in bytes
 *
 * Three short system calls on /proc.  Return: 0 if it can't be told.
 */
u64 urd_child_rss(const struct urd_child *c);

/** urd_child_end_input - end of file on its task input; @c->task_wr may be -1 afterwards */
void urd_child_end_input(struct urd_child *c);

/** urd_child_close - close all descriptors and forget the pid */
void urd_child_close(struct urd_child *c);

#endif /* URD_SPAWN_H */
