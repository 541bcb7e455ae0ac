// SPDX-License-Identifier: MIT
/*
 * The probe: facts about the environment from /proc and the limits, features by
 * trial on a ring that is set up exactly as urd's own, and the reasons why a
 * ring is refused.  What urd_probe_cause() tells apart: a kernel too old, one
 * built without io_uring, the two sysctls, a seccomp filter or security module,
 * RLIMIT_MEMLOCK and RLIMIT_NOFILE.
 */
#include "ring/probe.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/compat.h"

/* Sizes of urd's smallest ring; ring.c falls back to them when memory is tight. */
#define SQ_ENTRIES 256u
#define CQ_ENTRIES 1024u

#define SETUP_FLAGS                                                                          \
	(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | \
	 IORING_SETUP_CQSIZE)

/* --- the environment ------------------------------------------------------- */

/* Read a small file of /proc; NUL-terminated, empty if there is none. */
static void proc_read(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

/* A number from a /proc file that holds nothing else. */
static s64 proc_number(const char *path, s64 absent)
{
	char buf[32];

	proc_read(path, buf, sizeof(buf));
	return buf[0] ? strtoll(buf, NULL, 10) : absent;
}

/* The number behind a key of /proc/self/status. */
static bool status_number(const char *status, const char *key, int base, u64 *v)
{
	const char *at = strstr(status, key);

	if (!at)
		return false;
	*v = strtoull(at + strlen(key), NULL, base);
	return true;
}

static bool group_is_mine(s64 gid)
{
	gid_t groups[1024];
	int n;

	if (gid < 0)
		return false;
	if ((s64)getegid() == gid)
		return true;
	n = getgroups((int)ARRAY_SIZE(groups), groups);
	for (int i = 0; i < n; i++) {
		if ((s64)groups[i] == gid)
			return true;
	}
	return false;
}

/* Memory that the kernel sets aside for the smallest ring, in whole pages. */
static u64 ring_bytes(void)
{
	u64 page = (u64)sysconf(_SC_PAGESIZE);
	u64 sqes = SQ_ENTRIES * sizeof(struct io_uring_sqe);
	/* both rings share one mapping, with the array of indices and a header */
	u64 rings = CQ_ENTRIES * sizeof(struct io_uring_cqe) + SQ_ENTRIES * sizeof(u32) + 320;

	return (sqes + page - 1) / page * page + (rings + page - 1) / page * page;
}

static u64 limit_read(int resource, bool hard)
{
	struct rlimit lim;
	rlim_t v;

	if (getrlimit((__rlimit_resource_t)resource, &lim) < 0)
		return UINT64_MAX;
	v = hard ? lim.rlim_max : lim.rlim_cur;
	return v == RLIM_INFINITY ? UINT64_MAX : (u64)v;
}

void urd_probe_env_read(struct urd_probe_env *env)
{
	struct utsname name;
	char status[4096];
	u64 v;

	memset(env, 0, sizeof(*env));
	if (uname(&name) == 0) {
		snprintf(env->release, sizeof(env->release), "%s", name.release);
		if (sscanf(name.release, "%u.%u", &env->major, &env->minor) != 2)
			env->major = env->minor = 0;
	}
	env->sysctl_disabled = (int)proc_number("/proc/sys/kernel/io_uring_disabled", -1);
	env->sysctl_group = proc_number("/proc/sys/kernel/io_uring_group", -1);
	env->group_member = group_is_mine(env->sysctl_group);

	proc_read("/proc/self/status", status, sizeof(status));
	env->seccomp = status_number(status, "\nSeccomp:", 10, &v) ? (int)v : -1;
	if (status_number(status, "\nCapEff:", 16, &v)) {
		env->cap_ipc_lock = v >> CAP_IPC_LOCK & 1;
		env->cap_sys_admin = v >> CAP_SYS_ADMIN & 1;
	}
	env->memlock_soft_bytes = limit_read(RLIMIT_MEMLOCK, false);
	env->memlock_hard_bytes = limit_read(RLIMIT_MEMLOCK, true);
	env->memlock_needed_bytes = ring_bytes();
	env->nofile_soft = limit_read(RLIMIT_NOFILE, false);
}

/* --- why a ring is refused --------------------------------------------------- */

static bool kernel_before(const struct urd_probe_env *env, u32 major, u32 minor)
{
	return env->major < major || (env->major == major && env->minor < minor);
}

static void cause_enosys(const struct urd_probe_env *env, char *buf, size_t len)
{
	if (kernel_before(env, 5, 1))
		snprintf(buf, len,
			 "Linux %s is too old for io_uring: urd needs Linux 6.1 "
			 "or newer, upgrade the kernel",
			 env->release);
	else if (env->seccomp > 0)
		snprintf(buf, len,
			 "a seccomp filter hides io_uring (ENOSYS): allow io_uring_setup, "
			 "io_uring_enter and io_uring_register in the container's or service's "
			 "seccomp profile");
	else
		snprintf(buf, len,
			 "Linux %s was built without io_uring "
			 "(CONFIG_IO_URING=n): use a kernel that "
			 "has it, 6.1 or newer",
			 env->release);
}

static void cause_eperm(const struct urd_probe_env *env, int err, char *buf, size_t len)
{
	if (err == -EPERM && env->sysctl_disabled == 2) {
		snprintf(buf, len,
			 "io_uring is switched off (kernel.io_uring_disabled = 2): run "
			 "\"sysctl -w kernel.io_uring_disabled=0\" as root");
	} else if (err == -EPERM && env->sysctl_disabled == 1 && !env->cap_sys_admin &&
		   !env->group_member) {
		if (env->sysctl_group < 0)
			snprintf(
				buf, len,
				"io_uring is for privileged processes only "
				"(kernel.io_uring_disabled = 1, no kernel.io_uring_group): set "
				"kernel.io_uring_group to urd's group, or kernel.io_uring_disabled "
				"to 0");
		else
			snprintf(buf, len,
				 "io_uring is for the group %lld only "
				 "(kernel.io_uring_disabled = 1, "
				 "kernel.io_uring_group): add urd's user to that group, or set "
				 "kernel.io_uring_disabled to 0",
				 (long long)env->sysctl_group);
	} else if (env->seccomp > 0) {
		snprintf(buf, len,
			 "a seccomp filter forbids io_uring (%s): allow io_uring_setup, "
			 "io_uring_enter and io_uring_register in the container's or service's "
			 "seccomp profile",
			 err == -EPERM ? "EPERM" : "EACCES");
	} else {
		snprintf(buf, len,
			 "a security module forbids io_uring (%s without a "
			 "seccomp filter): allow it "
			 "in the policy of SELinux or AppArmor, see the audit log",
			 err == -EPERM ? "EPERM" : "EACCES");
	}
}

static void bytes_show(u64 v, char *buf, size_t len)
{
	if (v == UINT64_MAX)
		snprintf(buf, len, "unlimited");
	else
		snprintf(buf, len, "%llu KiB", (unsigned long long)v / 1024);
}

static void cause_enomem(const struct urd_probe_env *env, char *buf, size_t len)
{
	char soft[32];
	char hard[32];

	bytes_show(env->memlock_soft_bytes, soft, sizeof(soft));
	bytes_show(env->memlock_hard_bytes, hard, sizeof(hard));
	if (env->cap_ipc_lock || env->memlock_soft_bytes == UINT64_MAX)
		snprintf(buf, len,
			 "the kernel has no memory for a ring (ENOMEM; "
			 "RLIMIT_MEMLOCK does not bind): "
			 "free memory or raise the memory limit of the cgroup");
	else
		snprintf(buf, len,
			 "RLIMIT_MEMLOCK is too small for a ring: soft %s, hard "
			 "%s, needed %llu KiB for "
			 "each urd of this user: set \"ulimit -l 65536\" or "
			 "LimitMEMLOCK=64M in the unit",
			 soft, hard, (unsigned long long)env->memlock_needed_bytes / 1024);
}

void urd_probe_cause(const struct urd_probe_env *env, int err, char *buf, size_t len)
{
	switch (err) {
	case -ENOSYS:
		cause_enosys(env, buf, len);
		break;
	case -EPERM:
	case -EACCES:
		cause_eperm(env, err, buf, len);
		break;
	case -ENOMEM:
		cause_enomem(env, buf, len);
		break;
	case -EMFILE:
		snprintf(buf, len,
			 "no file descriptor is left for a ring (RLIMIT_NOFILE is %llu): raise "
			 "\"ulimit -n\" or LimitNOFILE in the unit",
			 (unsigned long long)env->nofile_soft);
		break;
	case -ENFILE:
		snprintf(buf, len,
			 "the system has no file descriptor left: raise the sysctl fs.file-max");
		break;
	case -EINVAL:
		if (kernel_before(env, 6, 1))
			snprintf(buf, len,
				 "Linux %s is too old: urd needs Linux 6.1 or newer, upgrade "
				 "the kernel",
				 env->release);
		else
			snprintf(buf, len,
				 "Linux %s refuses urd's kind of ring (EINVAL on DEFER_TASKRUN): "
				 "its io_uring is cut down, use an unmodified kernel, 6.1 or newer",
				 env->release);
		break;
	default:
		snprintf(
			buf, len,
			"io_uring_setup failed: %s: run \"urd probe\" on another kernel to compare",
			strerror(-err));
	}
}

int urd_probe_explain(int err, char *buf, size_t len)
{
	struct urd_probe_env env;

	urd_probe_env_read(&env);
	urd_probe_cause(&env, err, buf, len);
	return (int)strlen(buf);
}

/* --- trials -------------------------------------------------------------------- */

static void feature_add(struct urd_probe *p, const char *name, const char *what, bool required,
			bool present)
{
	urd_assert(p->features_nr < URD_PROBE_FEATURES_MAX);
	p->features[p->features_nr++] = (struct urd_probe_feature){
		.name = name,
		.what = what,
		.required = required,
		.present = present,
	};
}

/* Submit the one entry that is queued and give its result; -EAGAIN if none comes. */
static int ring_do(struct io_uring *ring, u32 *flags)
{
	struct __kernel_timespec second = { .tv_sec = 1 };
	struct io_uring_cqe *cqe;
	int ret = io_uring_submit(ring);

	if (ret < 0)
		return ret;
	ret = io_uring_wait_cqe_timeout(ring, &cqe, &second);
	if (ret < 0)
		return ret == -ETIME ? -EAGAIN : ret;
	ret = cqe->res;
	if (flags)
		*flags = cqe->flags;
	io_uring_cqe_seen(ring, cqe);
	return ret;
}

/* Does a write to a pipe take RWF_NOWAIT? (6.4) */
static bool try_pipe_nowait(struct io_uring *ring)
{
	struct io_uring_sqe *sqe;
	int fds[2];
	int ret;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_write(sqe, fds[1], "x", 1, (u64)-1);
	sqe->rw_flags = RWF_NOWAIT;
	ret = ring_do(ring, NULL);
	close(fds[0]);
	close(fds[1]);
	return ret == 1;
}

/*
 * One connection through a multishot accept on an address that the kernel picks.
 * The listener dies with the function, the armed accept with the ring.
 */
static bool try_accept_multishot(struct io_uring *ring)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t addr_len = sizeof(addr);
	bool ok = false;
	u32 flags = 0;
	int listener;
	int peer;
	int ret;

	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0 || peer < 0)
		goto out_close;
	/* only the family: the kernel finds a free abstract address */
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr.sun_family)) < 0 ||
	    listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&addr, &addr_len) < 0 ||
	    connect(peer, (struct sockaddr *)&addr, addr_len) < 0)
		goto out_close;
	io_uring_prep_multishot_accept(io_uring_get_sqe(ring), listener, NULL, NULL, SOCK_CLOEXEC);
	ret = ring_do(ring, &flags);
	ok = ret >= 0 && (flags & IORING_CQE_F_MORE);
	if (ret >= 0)
		close(ret);
out_close:
	if (peer >= 0)
		close(peer);
	if (listener >= 0)
		close(listener);
	return ok;
}

static bool try_setup(u32 flags)
{
	struct io_uring_params params = { .flags = SETUP_FLAGS | flags, .cq_entries = 16 };
	long fd = syscall(SYS_io_uring_setup, 8, &params);

	if (fd < 0)
		return false;
	close((int)fd);
	return true;
}

static int child_exit(void *arg)
{
	(void)arg;
	/* not _exit(): the sanitizers watch that one, and do not know this stack */
	return (int)syscall(SYS_exit_group, 0);
}

/* Does a child come with a pidfd, and can it be waited for by it? */
static bool try_clone_pidfd(void)
{
	static _Alignas(16) char stack[64 * 1024];
	siginfo_t info = { 0 };
	int pidfd = -1;
	int pid;
	bool ok;

	pid = clone(child_exit, stack + sizeof(stack),
		    CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, NULL, &pidfd);
	if (pid < 0)
		return false;
	/* who ignores SIGCHLD has no exit status to collect, and a pidfd all the same */
	ok = pidfd >= 0 && (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0 || errno == ECHILD);
	if (!ok)
		(void)waitpid(pid, NULL, 0);
	if (pidfd >= 0)
		close(pidfd);
	return ok && info.si_status == 0;
}

static bool try_pidfd_open(void)
{
	long fd = syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0)
		return false;
	close((int)fd);
	return true;
}

/* --- the table ------------------------------------------------------------------- */

/* clang-format off */
static const struct {
	u32 op;
	bool required;
	const char *name;
	const char *what;
} opcodes[] = {
	{ IORING_OP_READ, true, "op READ", "answers, control messages, output of workers" },
	{ IORING_OP_WRITE, true, "op WRITE", "requests to workers" },
	{ IORING_OP_WRITEV, true, "op WRITEV", "requests to workers, gathered" },
	{ IORING_OP_SEND, true, "op SEND", "answers to clients" },
	{ IORING_OP_SENDMSG, true, "op SENDMSG", "answers to clients, gathered" },
	{ IORING_OP_POLL_ADD, true, "op POLL_ADD", "end of workers, by pidfd" },
	{ IORING_OP_ACCEPT, true, "op ACCEPT", "client connections" },
	{ IORING_OP_ASYNC_CANCEL, true, "op ASYNC_CANCEL", "clients that leave, shutdown" },
	{ IORING_OP_LINK_TIMEOUT, true, "op LINK_TIMEOUT", "time limits" },
	{ IORING_OP_MSG_RING, false, "op MSG_RING", "messages between rings" },
};

static const struct {
	u32 bit;
	bool required;
	const char *name;
	const char *what;
} bits[] = {
	{ IORING_FEAT_NODROP, true, "feature NODROP", "no completion is ever lost" },
	{ IORING_FEAT_CQE_SKIP, true, "feature CQE_SKIP", "one completion per request, not three" },
	{ IORING_FEAT_EXT_ARG, true, "feature EXT_ARG", "wait with a time limit in one call" },
	{ IORING_FEAT_FAST_POLL, true, "feature FAST_POLL", "waiting without kernel threads" },
	{ IORING_FEAT_SUBMIT_STABLE, true, "feature SUBMIT_STABLE",
	  "deadlines are read at submission" },
	{ URD_FEAT_NO_IOWAIT, false, "feature NO_IOWAIT", "idle time is not shown as I/O wait" },
};
/* clang-format on */

static void probe_opcodes(struct urd_probe *p, struct io_uring *ring)
{
	struct io_uring_probe *ops = ring ? io_uring_get_probe_ring(ring) : NULL;

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++)
		feature_add(p, opcodes[i].name, opcodes[i].what, opcodes[i].required,
			    ops && io_uring_opcode_supported(ops, (int)opcodes[i].op));
	if (ops)
		io_uring_free_probe(ops);
}

static void probe_features(struct urd_probe *p, struct io_uring *ring, u32 features)
{
	feature_add(p, "SINGLE_ISSUER", "set-up: one thread per ring", true, ring);
	feature_add(p, "DEFER_TASKRUN", "set-up: completions when we ask for them (6.1)", true,
		    ring);
	feature_add(p, "SUBMIT_ALL", "set-up: one bad entry does not stop a batch", true, ring);
	feature_add(p, "CQSIZE", "set-up: room for all completions", true, ring);
	feature_add(p, "NO_SQARRAY", "set-up: one indirection less (6.6)", false,
		    ring && try_setup(IORING_SETUP_NO_SQARRAY));
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		feature_add(p, bits[i].name, bits[i].what, bits[i].required,
			    features & bits[i].bit);
	probe_opcodes(p, ring);
	feature_add(p, "ring fd registration", "a cheaper system call", false,
		    ring && io_uring_register_ring_fd(ring) == 1);
	feature_add(p, "pipe RWF_NOWAIT", "requests are written without a completion (6.4)", false,
		    ring && try_pipe_nowait(ring));
	/* last on the ring: its accept stays armed */
	feature_add(p, "multishot accept", "client connections", true,
		    ring && try_accept_multishot(ring));
	feature_add(p, "pidfd_open", "signals that cannot hit a stranger", false, try_pidfd_open());
	feature_add(p, "CLONE_PIDFD", "workers are known by pidfd from their birth", true,
		    try_clone_pidfd());
	feature_add(p, "close_range", "no descriptor leaks into workers", true,
		    syscall(SYS_close_range, ~0u, ~0u, 0) == 0);
	feature_add(p, "PR_SET_PDEATHSIG", "workers die with urd", true,
		    prctl(PR_GET_PDEATHSIG, &(int){ 0 }) == 0);
}

int urd_probe_run(struct urd_probe *p)
{
	struct io_uring_params params = { .flags = SETUP_FLAGS, .cq_entries = CQ_ENTRIES };
	struct io_uring ring;
	cpu_set_t cpus;

	memset(p, 0, sizeof(*p));
	urd_probe_env_read(&p->env);
	p->cores = sched_getaffinity(0, sizeof(cpus), &cpus) ? (u32)sysconf(_SC_NPROCESSORS_ONLN) :
							       (u32)CPU_COUNT(&cpus);
	p->setup_err = io_uring_queue_init_params(SQ_ENTRIES, &ring, &params);
	probe_features(p, p->setup_err ? NULL : &ring, p->setup_err ? 0 : params.features);
	if (!p->setup_err)
		io_uring_queue_exit(&ring);
	return p->setup_err;
}

/* The first feature that is required and absent; NULL if there is none. */
static const struct urd_probe_feature *feature_missing(const struct urd_probe *p)
{
	for (u32 i = 0; i < p->features_nr; i++) {
		if (p->features[i].required && !p->features[i].present)
			return &p->features[i];
	}
	return NULL;
}

bool urd_probe_ok(const struct urd_probe *p)
{
	return !p->setup_err && !feature_missing(p);
}

int urd_probe_verdict(const struct urd_probe *p, char *buf, size_t len)
{
	const struct urd_probe_feature *f = feature_missing(p);

	if (p->setup_err) {
		urd_probe_cause(&p->env, p->setup_err, buf, len);
		return p->setup_err;
	}
	if (!f) {
		snprintf(buf, len, "ok");
		return 0;
	}
	snprintf(buf, len, "%s is missing (%s): %s", f->name, f->what,
		 p->env.seccomp > 0 ? "allow it in the seccomp profile" :
				      "use an unmodified kernel, 6.1 or newer");
	return -ENOTSUP;
}
