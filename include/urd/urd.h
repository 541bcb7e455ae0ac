/* SPDX-License-Identifier: MIT */
/*
 * liburd: keep pools of worker processes warm and dispatch requests to them.
 *
 *	struct urd_conf conf = URD_CONF_INIT;
 *	struct urd_pool_conf pool = URD_POOL_CONF_INIT;
 *	...
 *	urd = urd_open(&conf, err, sizeof(err));
 *	urd_execute(urd, &call, &reply);
 *	urd_close(urd);
 *
 * Two ways to run one.  By default liburd has a thread of its own and any thread
 * may submit and execute.  With URD_OPEN_LOOP the calling thread owns the ring:
 * it turns it with urd_turn() or urd_run(), or by executing, and no other thread
 * stands between it and a worker.  The daemon is a program of the second kind.
 *
 * docs/examples/ has a worked example.
 */
#ifndef URD_URD_H
#define URD_URD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <urd/wire.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A limit that is off, in nanoseconds. */
#define URD_OFF UINT64_MAX

/** A number that is not set: what it would be anyway stays. */
#define URD_UNSET INT32_MIN
/** A limit of the kernel (rlimit) that is not set: the worker has urd's own. */
#define URD_RLIMIT_UNSET (UINT64_MAX - 1)
/** No limit of the kernel. */
#define URD_RLIMIT_NONE UINT64_MAX

#define URD_USEC 1000ull
#define URD_MSEC (1000 * URD_USEC)
#define URD_SEC (1000 * URD_MSEC)

struct urd;

/** enum urd_protocol - what a pool's workers speak */
enum urd_protocol {
	URD_PROTOCOL_URD,  /* native: pipes on descriptors 3 to 6 */
	URD_PROTOCOL_FOLK, /* Folk 0.1: socket pairs on 3 and 4 */
};

/** enum urd_gone - what to do with a running request whose caller went away */
enum urd_gone {
	URD_GONE_IGNORE, /* let it finish, drop the answer */
	URD_GONE_NOTIFY, /* tell the worker to cancel, if it knows how */
	URD_GONE_KILL,	 /* kill the worker */
};

/**
 * struct urd_pool_conf - one pool
 * @name: 1 to 64 of [A-Za-z0-9_-]
 * @argv: program and arguments, NULL-terminated; no shell; looked up in PATH
 * @env: "NAME=value" strings set for the workers, NULL-terminated, or NULL
 * @env_pass: names passed on from urd's own environment when @clear_env, or NULL
 * @clear_env: start from an empty environment
 * @cwd: working directory, or NULL to inherit
 * @protocol: what the workers speak
 * @min_workers: workers kept warm, 1 to 4096
 * @max_workers: never more than these, >= @min_workers
 * @boot_timeout_ns: from spawn to the ready message
 * @queue_timeout_ns: from arrival to a worker
 * @exec_timeout_ns: send, execute, receive
 * @stop_timeout_ns: from the request to stop until SIGKILL; SIGTERM at half of it
 * @cancel_grace_ns: how long a worker may take to answer a cancelled request
 * @queue_max: requests that may wait
 * @queue_max_bytes: bytes of requests that may wait
 * @request_max: largest request payload in bytes, at most 16 MiB
 * @response_max: largest answer payload in bytes
 * @backoff_min_ns: wait after the first failed start; doubles
 * @backoff_max_ns: longest wait
 * @gone: policy for running requests without a caller
 * @scale_after_ns: a request that waits longer than this starts another worker, as
 *	long as there are fewer than @max_workers
 * @idle_timeout_ns: a worker above @min_workers that is idle for so long leaves
 * @heartbeat_timeout_ns: a busy worker that is silent for so long is killed; URD_OFF
 *	if workers need not beat
 * @stream_gap_ns: longest wait for the next chunk of a stream, or URD_OFF
 * @max_jobs: requests that a worker is given before it is replaced, 0 for no limit
 * @ttl_ns: age at which a worker is replaced, or URD_OFF
 * @jitter_percent: @max_jobs and @ttl_ns are shortened by up to so much, 0 to 90
 * @memory_soft: resident bytes after a request above which a worker is replaced, 0
 *	for no limit
 * @memory_hard: resident bytes during a request above which it is killed, 0 for none
 * @recycle_max: workers that may be away at once because they are being replaced; 0
 *	means a tenth of them, at least 1
 * @max_surge: workers above the wanted number while others are replaced; 0 means that
 *	an old one leaves before its replacement starts
 * @user: name or number of the user that workers run as, NULL for urd's own
 * @group: name or number of their group, NULL for the main group of @user
 * @umask: permission bits that files of theirs do not get, or URD_UNSET
 * @nice: their niceness, -20 to 19, or URD_UNSET
 * @oom_score_adj: -1000 to 1000; URD_UNSET for 200 above urd's own
 * @no_new_privs: 1: set-user-ID programs give them nothing, 0: they do; URD_UNSET for 1
 *	if there is a @user, else 0
 * @rlimit_nofile: open files of a worker, or one of the two URD_RLIMIT_; so are all below
 * @rlimit_core: bytes of a core dump
 * @rlimit_as: bytes of address space
 * @rlimit_cpu_ns: processor time, in whole seconds; SIGXCPU then, SIGKILL a second later
 * @rlimit_nproc: processes of the user
 */
struct urd_pool_conf {
	const char *name;
	const char *const *argv;
	const char *const *env;
	const char *const *env_pass;
	bool clear_env;
	const char *cwd;
	enum urd_protocol protocol;
	uint32_t min_workers;
	uint32_t max_workers;
	uint64_t boot_timeout_ns;
	uint64_t queue_timeout_ns;
	uint64_t exec_timeout_ns;
	uint64_t stop_timeout_ns;
	uint64_t cancel_grace_ns;
	uint32_t queue_max;
	uint64_t queue_max_bytes;
	uint32_t request_max;
	uint32_t response_max;
	uint64_t backoff_min_ns;
	uint64_t backoff_max_ns;
	enum urd_gone gone;
	uint64_t scale_after_ns;
	uint64_t idle_timeout_ns;
	uint64_t heartbeat_timeout_ns;
	uint64_t stream_gap_ns;
	uint32_t max_jobs;
	uint64_t ttl_ns;
	uint32_t jitter_percent;
	uint64_t memory_soft;
	uint64_t memory_hard;
	uint32_t recycle_max;
	uint32_t max_surge;
	const char *user;
	const char *group;
	int32_t umask;
	int32_t nice;
	int32_t oom_score_adj;
	int32_t no_new_privs;
	uint64_t rlimit_nofile;
	uint64_t rlimit_core;
	uint64_t rlimit_as;
	uint64_t rlimit_cpu_ns;
	uint64_t rlimit_nproc;
};

/* The defaults; 0 workers and 0 queue_max mean "one per CPU" and "64 per worker". */
/* clang-format off */
#define URD_POOL_CONF_INIT                                                     \
	{                                                                      \
		.boot_timeout_ns = 30 * URD_SEC,                               \
		.queue_timeout_ns = 5 * URD_SEC,                               \
		.exec_timeout_ns = 60 * URD_SEC,                               \
		.stop_timeout_ns = 10 * URD_SEC,                               \
		.cancel_grace_ns = 1 * URD_SEC,                                \
		.queue_max_bytes = 256ull << 20,                               \
		.request_max = URD_REQUEST_MAX,                                \
		.response_max = URD_RESPONSE_MAX,                              \
		.backoff_min_ns = 100 * URD_MSEC,                              \
		.backoff_max_ns = 30 * URD_SEC,                                \
		.gone = URD_GONE_IGNORE,                                       \
		.scale_after_ns = 50 * URD_MSEC,                               \
		.idle_timeout_ns = 60 * URD_SEC,                               \
		.heartbeat_timeout_ns = URD_OFF,                               \
		.stream_gap_ns = URD_OFF,                                      \
		.ttl_ns = URD_OFF,                                             \
		.jitter_percent = 20,                                          \
		.max_surge = 1,                                                \
		.umask = URD_UNSET,                                            \
		.nice = URD_UNSET,                                             \
		.oom_score_adj = URD_UNSET,                                    \
		.no_new_privs = URD_UNSET,                                     \
		.rlimit_nofile = URD_RLIMIT_UNSET,                             \
		.rlimit_core = URD_RLIMIT_UNSET,                               \
		.rlimit_as = URD_RLIMIT_UNSET,                                 \
		.rlimit_cpu_ns = URD_RLIMIT_UNSET,                             \
		.rlimit_nproc = URD_RLIMIT_UNSET,                              \
	}
/* clang-format on */

/**
 * struct urd_listen_conf - one listener
 * @address: "unix:/path" or "tcp:host:port"
 * @mode: permission bits of a Unix socket; 0 means 0660
 * @uid: owner of a Unix socket, (uid_t)-1 leaves it
 * @gid: group of a Unix socket, (gid_t)-1 leaves it
 * @admin: the methods of docs/admin.md are there too; a Unix socket, mode 0600 unless set
 */
struct urd_listen_conf {
	const char *address;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	bool admin;
};

/** enum urd_log_level - how much to tell */
enum urd_log_level { URD_LOG_ERROR, URD_LOG_WARN, URD_LOG_INFO, URD_LOG_DEBUG };

/** enum urd_log_format - how to tell it */
enum urd_log_format { URD_LOG_TEXT, URD_LOG_JSON };

/**
 * struct urd_conf - a whole urd
 * @pools: the pools; the one named "default", or the first, serves bare names
 * @pools_nr: 1 to 256
 * @listen: listeners, may be NULL
 * @listen_nr: 0 to 64
 * @conns_max: client connections at once
 * @conn_inflight_max: unanswered requests on one connection
 * @client_write_timeout_ns: a client that does not read for so long is cut
 * @memory: bytes that all frames in flight may take together
 * @log_level: how much to tell
 * @log_format: how
 * @log_fd: where to, -1 for nowhere
 * @log_line_max: longest line of a worker's output that is logged whole, bytes
 * @drain_timeout_ns: time of a drain that an admin asks for without naming one
 */
struct urd_conf {
	const struct urd_pool_conf *pools;
	uint32_t pools_nr;
	const struct urd_listen_conf *listen;
	uint32_t listen_nr;
	uint32_t conns_max;
	uint32_t conn_inflight_max;
	uint64_t client_write_timeout_ns;
	uint64_t memory;
	enum urd_log_level log_level;
	enum urd_log_format log_format;
	int log_fd;
	uint32_t log_line_max;
	uint64_t drain_timeout_ns;
};

/* clang-format off */
#define URD_CONF_INIT                                                          \
	{                                                                      \
		.conns_max = 1024,                                             \
		.conn_inflight_max = 1024,                                     \
		.client_write_timeout_ns = 30 * URD_SEC,                       \
		.memory = 1ull << 30,                                          \
		.log_level = URD_LOG_WARN,                                     \
		.log_format = URD_LOG_TEXT,                                    \
		.log_fd = 2,                                                   \
		.log_line_max = 16384,                                         \
		.drain_timeout_ns = 30 * URD_SEC,                              \
	}
/* clang-format on */

/**
 * typedef urd_chunk_fn - a part of a streamed answer has come
 * @data: one MessagePack value, valid until the function returns
 * @len: its length in bytes
 * @arg: what was given to urd_submit()
 *
 * Context: as urd_done_fn.
 */
typedef void (*urd_chunk_fn)(const void *data, size_t len, void *arg);

/**
 * struct urd_call - a request
 * @pool: name of the pool, or NULL for the default pool
 * @method: name of the method, 1 to 255 bytes
 * @params: one MessagePack value; copied
 * @params_len: its length in bytes
 * @deadline_ns: how long the caller will wait, or URD_OFF (0 means the same)
 * @traceparent: W3C trace context handed to the worker, or NULL
 * @chunk: if set, the worker may stream its answer, and this is called for each part
 *	(not with urd_execute())
 */
struct urd_call {
	const char *pool;
	const char *method;
	const void *params;
	size_t params_len;
	uint64_t deadline_ns;
	const char *traceparent;
	urd_chunk_fn chunk;
};

/**
 * struct urd_reply - the answer to a request
 * @code: URD_OK, URD_APP or what went wrong
 * @executed: whether a worker ran it
 * @message: text for people, NUL-terminated, "" on success
 * @data: one MessagePack value: the result; for URD_APP the worker's error value;
 *	NULL otherwise
 * @len: its length in bytes
 */
struct urd_reply {
	enum urd_code code;
	enum urd_executed executed;
	const char *message;
	const void *data;
	size_t len;
};

/**
 * typedef urd_done_fn - a request has its answer
 * @reply: valid until the function returns
 * @arg: what was given to urd_submit()
 *
 * Context: the thread that turns the ring. It must not block; it may submit, and
 * must not execute, drain or close.
 */
typedef void (*urd_done_fn)(const struct urd_reply *reply, void *arg);

/** urd_open(): the caller turns the ring */
#define URD_OPEN_LOOP (1u << 0)

/**
 * urd_open - start pools and listeners
 * @conf: copied; need not outlive the call
 * @flags: 0 or URD_OPEN_LOOP
 * @urd: set to the instance
 * @err: one line of explanation on failure
 * @err_len: size of @err, at least 256 is sensible
 *
 * Workers boot in the background; requests submitted meanwhile wait in the queue.
 *
 * Return: 0; -EINVAL (@err says which value), -EADDRINUSE, -EACCES, or what the
 * kernel said to io_uring_setup().
 */
int urd_open(const struct urd_conf *conf, unsigned int flags, struct urd **urd, char *err,
	     size_t err_len);

/**
 * urd_submit - hand in a request
 * @urd: the instance
 * @call: the request; copied
 * @done: called exactly once with the answer, if 0 is returned
 * @arg: handed to it
 *
 * Context: any thread; with URD_OPEN_LOOP only the owner of the ring.
 * Return: 0; -EINVAL (malformed params, empty method), -EMSGSIZE, -ENOBUFS (too
 * many submitted and not yet taken), -ESHUTDOWN, -ENOMEM, -EPERM (wrong thread).
 */
int urd_submit(struct urd *urd, const struct urd_call *call, urd_done_fn done, void *arg);

/**
 * urd_execute - hand in a request and wait
 * @urd: the instance
 * @call: the request
 * @reply: set to the answer; free with urd_reply_free()
 *
 * Context: as urd_submit(), but not from a urd_done_fn.
 * Return: 0 if there is an answer (look at its code), else as urd_submit().
 */
int urd_execute(struct urd *urd, const struct urd_call *call, struct urd_reply **reply);

/** urd_reply_free - free what urd_execute() gave; NULL is fine */
void urd_reply_free(struct urd_reply *reply);

/** urd_fd - URD_OPEN_LOOP: poll it for reading, for at most urd_timeout(), then call urd_turn() */
int urd_fd(const struct urd *urd);

/**
 * urd_timeout - URD_OPEN_LOOP: how long the program may sleep
 * @urd: the instance
 *
 * Return: nanoseconds until urd_turn() must be called although nothing became
 * readable (a queue deadline, a backoff); URD_OFF if there is no such time.
 */
uint64_t urd_timeout(const struct urd *urd);

/**
 * urd_turn - URD_OPEN_LOOP: submit, wait, and do what came in
 * @urd: the instance
 * @timeout_ns: longest wait; 0 for none, URD_OFF for no limit
 *
 * Return: 1, or 0 once drained.
 */
int urd_turn(struct urd *urd, uint64_t timeout_ns);

/**
 * urd_drain - take nothing new, finish what there is, stop the workers
 * @urd: the instance
 * @timeout_ns: after that, running requests are cut
 *
 * Threaded: waits until done. URD_OPEN_LOOP: begins it; urd_turn() returns 0 when
 * it is done. A second call can only shorten the time.
 *
 * Return: 0.
 */
int urd_drain(struct urd *urd, uint64_t timeout_ns);

/**
 * urd_scale - set the number of workers of a pool
 * @urd: the instance
 * @pool: name, or NULL for the default pool
 * @n: at least 1; more than max_workers counts as max_workers
 *
 * It is the pool's new min_workers. Workers above it finish what they have and leave.
 *
 * Context: only the thread that turns the ring; it does so afterwards.
 * Return: the number set; -EINVAL (@n is 0), -ENOENT (no such pool), -EPERM (wrong
 * thread), -ESHUTDOWN.
 */
int urd_scale(struct urd *urd, const char *pool, uint32_t n);

/**
 * urd_reload - replace workers one after the other
 * @urd: the instance
 * @pool: name, or NULL for all pools
 *
 * No request is lost, and as long as new workers do not start, the old ones stay.
 *
 * Context: as urd_scale().
 * Return: number of workers to be replaced; -ENOENT, -EPERM, -ESHUTDOWN.
 */
int urd_reload(struct urd *urd, const char *pool);

/** urd_close - drain at once if not drained, and free; NULL is fine */
void urd_close(struct urd *urd);

/**
 * urd_ready - number of workers that could take a request now or soon (idle or busy)
 * @pool: name, or NULL for all pools
 *
 * Context: any thread; a snapshot.
 */
uint32_t urd_ready(const struct urd *urd, const char *pool);

/** urd_version - "0.1.0" */
const char *urd_version(void);

#ifdef __cplusplus
}
#endif

#endif /* URD_URD_H */
