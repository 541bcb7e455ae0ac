/* SPDX-License-Identifier: MIT */
/*
 * What the running kernel and the limits of this process offer to urd, found by
 * trying, never by the version number.  And, when io_uring is refused, the one
 * line that names the cause and the cure.
 *
 * Needs nothing of urd's: it runs before anything else, in any thread.
 */
#ifndef URD_PROBE_H
#define URD_PROBE_H

#include "base/base.h"

/** Rows of the table of features at most. */
#define URD_PROBE_FEATURES_MAX 48
/** A buffer for any line of urd_probe_explain(), in bytes. */
#define URD_PROBE_LINE_MAX 512

/**
 * struct urd_probe_env - what decides why io_uring is refused
 * @release: kernel release as uname(2) has it
 * @major: its first number
 * @minor: its second number
 * @sysctl_disabled: kernel.io_uring_disabled, -1 if there is no such file (before 6.6)
 * @sysctl_group: kernel.io_uring_group, -1 for none
 * @group_member: this process is in that group
 * @seccomp: mode of /proc/self/status: 0 none, 1 strict, 2 filter; -1 unknown
 * @memlock_soft_bytes: RLIMIT_MEMLOCK, UINT64_MAX for none
 * @memlock_hard_bytes: likewise
 * @memlock_needed_bytes: what urd's smallest ring takes of it, if the kernel counts it
 * @nofile_soft: RLIMIT_NOFILE, UINT64_MAX for none
 * @cap_ipc_lock: RLIMIT_MEMLOCK does not bind us
 * @cap_sys_admin: kernel.io_uring_disabled = 1 does not bind us
 */
struct urd_probe_env {
	char release[65];
	u32 major;
	u32 minor;
	int sysctl_disabled;
	s64 sysctl_group;
	bool group_member;
	int seccomp;
	u64 memlock_soft_bytes;
	u64 memlock_hard_bytes;
	u64 memlock_needed_bytes;
	u64 nofile_soft;
	bool cap_ipc_lock;
	bool cap_sys_admin;
};

/**
 * struct urd_probe_feature - one thing that urd uses
 * @name: as the manual pages call it
 * @what: what urd uses it for
 * @required: urd does not run without it
 * @present: it is here
 */
struct urd_probe_feature {
	const char *name;
	const char *what;
	bool required;
	bool present;
};

/**
 * struct urd_probe - all facts
 * @env: kernel and limits
 * @cores: CPUs that this process may run on
 * @setup_err: 0, or the negative errno of setting a ring up
 * @features: the table
 * @features_nr: its length
 */
struct urd_probe {
	struct urd_probe_env env;
	u32 cores;
	int setup_err;
	struct urd_probe_feature features[URD_PROBE_FEATURES_MAX];
	u32 features_nr;
};

/**
 * urd_probe_run - gather all facts
 * @p: filled in
 *
 * Opens a ring, a few pipes and sockets for trials and closes them again, and
 * starts one short-lived child.
 *
 * Return: 0, or the negative errno with which the kernel refused a ring (also in
 * @p->setup_err; the facts about the environment are there all the same).
 */
int urd_probe_run(struct urd_probe *p);

/** urd_probe_ok - can urd run here? */
bool urd_probe_ok(const struct urd_probe *p);

/**
 * urd_probe_verdict - why urd cannot run here, in one line
 *
 * Return: 0 if it can (the line is then "ok"), else negative errno.
 */
int urd_probe_verdict(const struct urd_probe *p, char *buf, size_t len);

/** urd_probe_env_read - read the environment only */
void urd_probe_env_read(struct urd_probe_env *env);

/**
 * urd_probe_cause - cause and cure of a refusal, from given facts
 * @env: the facts
 * @err: negative errno of setting a ring up
 * @buf: filled with one line without a newline
 * @len: its size, URD_PROBE_LINE_MAX holds any
 *
 * Pure.
 */
void urd_probe_cause(const struct urd_probe_env *env, int err, char *buf, size_t len);

/**
 * urd_probe_explain - the same from the facts of this process
 *
 * Return: length of the line.
 */
int urd_probe_explain(int err, char *buf, size_t len);

#endif /* URD_PROBE_H */
