// SPDX-License-Identifier: MIT
/*
 * The line that explains a refusal: from given facts, each branch names its
 * cause and its cure, and no other's.  And the facts of the machine at hand.
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "ring/probe.h"

/* A machine on which all is well. */
static struct urd_probe_env env_good(void)
{
	return (struct urd_probe_env){
		.release = "6.1.0-18-amd64",
		.major = 6,
		.minor = 1,
		.sysctl_disabled = 0,
		.sysctl_group = -1,
		.memlock_soft_bytes = 8 << 20,
		.memlock_hard_bytes = 8 << 20,
		.memlock_needed_bytes = 36 << 10,
		.nofile_soft = 1024,
	};
}

static void expect(const struct urd_probe_env *env, int err, const char *cause, const char *cure)
{
	char line[URD_PROBE_LINE_MAX];

	urd_probe_cause(env, err, line, sizeof(line));
	cr_expect(strstr(line, cause) != NULL, "\"%s\" lacks \"%s\"", line, cause);
	cr_expect(strstr(line, cure) != NULL, "\"%s\" lacks \"%s\"", line, cure);
	cr_expect(strchr(line, '\n') == NULL);
	cr_expect(strlen(line) + 1 < sizeof(line), "the line was cut");
}

Test(probe, enosys_old_kernel)
{
	struct urd_probe_env env = env_good();

	env.major = 4;
	env.minor = 19;
	snprintf(env.release, sizeof(env.release), "4.19.0");
	env.seccomp = 2; /* does not matter: there is nothing to hide */
	expect(&env, -ENOSYS, "4.19.0 is too old", "upgrade the kernel");
	env.major = 5;
	env.minor = 0;
	expect(&env, -ENOSYS, "too old", "6.1");
}

Test(probe, enosys_seccomp_or_config)
{
	struct urd_probe_env env = env_good();

	expect(&env, -ENOSYS, "CONFIG_IO_URING=n", "use a kernel");
	env.seccomp = 2;
	expect(&env, -ENOSYS, "seccomp filter hides io_uring (ENOSYS)", "seccomp profile");
}

Test(probe, eperm_sysctl)
{
	struct urd_probe_env env = env_good();

	env.seccomp = 2; /* the sysctl comes first */
	env.sysctl_disabled = 2;
	env.cap_sys_admin = true;
	expect(&env, -EPERM, "kernel.io_uring_disabled = 2", "kernel.io_uring_disabled=0");
	env.sysctl_disabled = 1;
	env.cap_sys_admin = false;
	expect(&env, -EPERM, "no kernel.io_uring_group", "set kernel.io_uring_group");
	env.sysctl_group = 4711;
	expect(&env, -EPERM, "the group 4711", "add urd's user");
}

Test(probe, eperm_not_the_sysctl)
{
	struct urd_probe_env env = env_good();

	expect(&env, -EPERM, "a security module", "audit log");
	expect(&env, -EACCES, "a security module forbids io_uring (EACCES", "policy");
	env.seccomp = 2;
	expect(&env, -EPERM, "seccomp filter forbids io_uring (EPERM)", "seccomp profile");
	expect(&env, -EACCES, "seccomp filter forbids io_uring (EACCES)", "seccomp profile");
	/* with sysctl 1, members of the group and root are let through by the kernel */
	env.sysctl_disabled = 1;
	env.group_member = true;
	expect(&env, -EPERM, "seccomp filter", "seccomp profile");
	env.group_member = false;
	env.cap_sys_admin = true;
	expect(&env, -EPERM, "seccomp filter", "seccomp profile");
}

Test(probe, enomem)
{
	struct urd_probe_env env = env_good();

	env.memlock_soft_bytes = 16 << 10;
	env.memlock_hard_bytes = UINT64_MAX;
	expect(&env, -ENOMEM, "soft 16 KiB, hard unlimited, needed 36 KiB", "LimitMEMLOCK=64M");
	env.cap_ipc_lock = true;
	expect(&env, -ENOMEM, "RLIMIT_MEMLOCK does not bind", "cgroup");
	env.cap_ipc_lock = false;
	env.memlock_soft_bytes = UINT64_MAX;
	expect(&env, -ENOMEM, "RLIMIT_MEMLOCK does not bind", "cgroup");
}

Test(probe, descriptors)
{
	struct urd_probe_env env = env_good();

	expect(&env, -EMFILE, "RLIMIT_NOFILE is 1024", "LimitNOFILE");
	expect(&env, -ENFILE, "the system has no file descriptor", "fs.file-max");
}

Test(probe, einval)
{
	struct urd_probe_env env = env_good();

	expect(&env, -EINVAL, "refuses urd's kind of ring", "unmodified kernel");
	env.major = 6;
	env.minor = 0;
	snprintf(env.release, sizeof(env.release), "6.0.9");
	expect(&env, -EINVAL, "Linux 6.0.9 is too old", "6.1");
	env.major = 5;
	env.minor = 19;
	expect(&env, -EINVAL, "too old", "upgrade");
}

Test(probe, anything_else)
{
	struct urd_probe_env env = env_good();

	expect(&env, -EIO, "Input/output error", "urd probe");
}

/* No required feature may be missing silently. */
Test(probe, missing_feature)
{
	struct urd_probe p = { .env = env_good(), .features_nr = 2 };
	char line[URD_PROBE_LINE_MAX];

	p.features[0] = (struct urd_probe_feature){ "one", "work", false, false };
	p.features[1] = (struct urd_probe_feature){ "two", "play", true, true };
	cr_expect(urd_probe_ok(&p));
	cr_expect_eq(urd_probe_verdict(&p, line, sizeof(line)), 0);
	p.features[1].present = false;
	cr_expect(!urd_probe_ok(&p));
	cr_expect_eq(urd_probe_verdict(&p, line, sizeof(line)), -ENOTSUP);
	cr_expect(strstr(line, "two is missing (play)") != NULL, "%s", line);
	p.features[1].present = true;
	p.setup_err = -EMFILE;
	cr_expect(!urd_probe_ok(&p));
	cr_expect_eq(urd_probe_verdict(&p, line, sizeof(line)), -EMFILE);
}

/* On the machine that runs the tests urd runs, or nothing else would. */
Test(probe, here)
{
	struct urd_probe p;

	cr_assert_eq(urd_probe_run(&p), 0);
	cr_expect(urd_probe_ok(&p));
	cr_expect_geq(p.cores, 1);
	cr_expect_geq(p.env.major, 6);
	cr_expect_gt(p.env.memlock_needed_bytes, 16 << 10);
	for (u32 i = 0; i < p.features_nr; i++) {
		cr_expect(strlen(p.features[i].name) > 0);
		for (u32 j = 0; j < i; j++)
			cr_expect_str_neq(p.features[i].name, p.features[j].name);
	}
}
