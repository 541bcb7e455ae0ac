// SPDX-License-Identifier: MIT
/*
 * The table of keys, and the words of other process managers with ours beside
 * them, so that who comes from there is told what to write.
 */
#include "cli/config_keys.h"

#include <stdio.h>

#include "cli/suggest.h"

static const char *const level_words[] = { "error", "warn", "info", "debug", NULL };
static const char *const format_words[] = { "text", "json", NULL };
static const char *const protocol_words[] = { "urd", "folk", NULL };
static const char *const gone_words[] = { "ignore", "notify", "kill", NULL };

#define ROOT(n, m) \
	.name = n, .section = URD_SECTION_ROOT, .offset = offsetof(struct urd_config_values, m)
#define LOG(n, m) \
	.name = n, .section = URD_SECTION_LOG, .offset = offsetof(struct urd_config_values, m)
#define POOL(n, m) \
	.name = n, .section = URD_SECTION_POOL, .offset = offsetof(struct urd_pool_conf, m)
#define COUNT(lo, hi) .type = URD_KEY_COUNT, .min = (lo), .max = (hi)
#define SIZE(of, m, lo, hi) \
	.type = URD_KEY_SIZE, .width = sizeof(((struct of *)NULL)->m), .min = (lo), .max = (hi)
#define TIME(lo) .type = URD_KEY_DURATION, .min = (lo), .max = INT64_MAX
#define RLIMIT(n, m, t, lo, hi)                                                  \
	POOL(n, m), .type = (t), .width = sizeof(u64), .min = (lo), .max = (hi), \
		    .unlimited_ok = true
#define WORD(w) .type = URD_KEY_WORD, .words = (w)
#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* tidy: table */
/* clang-format off */
const struct urd_key urd_keys[] = {
	{ ROOT("listen", conf.listen), .type = URD_KEY_LISTEN, .def = "",
	  .help = "addresses of listeners: unix:/path?mode=0660&owner=NAME&group=NAME, "
		  "tcp:host:port" },
	{ ROOT("admin", admin), .type = URD_KEY_ADMIN, .def = "",
	  .help = "address for \"urd status\" and the like: unix:/path, mode 0600 unless given" },
	{ ROOT("memory", conf.memory), SIZE(urd_conf, memory, 1 * MIB, 1024 * GIB), .def = "1GiB",
	  .help = "bytes that all requests and answers in flight may take together" },
	{ ROOT("conns_max", conf.conns_max), COUNT(1, 65536), .def = "1024",
	  .help = "client connections at once" },
	{ ROOT("conn_inflight_max", conf.conn_inflight_max), COUNT(1, 65536), .def = "1024",
	  .help = "unanswered requests on one connection" },
	{ ROOT("client_write_timeout", conf.client_write_timeout_ns), TIME(NSEC_PER_MSEC),
	  .off_ok = true, .def = "30s", .help = "a client that does not read for so long is cut" },
	{ ROOT("drain_timeout", drain_timeout_ns), TIME(0), .off_ok = true, .def = "30s",
	  .help = "time that a graceful stop gives to running requests" },
	{ LOG("level", conf.log_level), WORD(level_words), .def = "info",
	  .help = "error, warn, info or debug" },
	{ LOG("format", conf.log_format), WORD(format_words), .def = "text",
	  .help = "text or json" },
	{ LOG("worker_line_max", conf.log_line_max), SIZE(urd_conf, log_line_max, 64, 1 * MIB),
	  .def = "16KiB", .help = "longest line of a worker's output that is logged whole" },
	{ POOL("command", argv), .type = URD_KEY_LIST, .def = "",
	  .help = "program and arguments, a list; no shell; required" },
	{ POOL("cwd", cwd), .type = URD_KEY_STRING, .def = "",
	  .help = "working directory of the workers; urd's own if not set" },
	{ POOL("env", env), .type = URD_KEY_LIST, .def = "",
	  .help = "environment to set, a list of NAME=value" },
	{ POOL("env_pass", env_pass), .type = URD_KEY_LIST, .def = "",
	  .help = "names to pass on from urd's environment when clear_env is true" },
	{ POOL("clear_env", clear_env), .type = URD_KEY_BOOL, .def = "false",
	  .help = "start workers from an empty environment" },
	{ POOL("protocol", protocol), WORD(protocol_words), .def = "urd",
	  .help = "what the workers speak: urd or folk" },
	{ POOL("workers", min_workers), .type = URD_KEY_WORKERS, .min = 1, .max = 4096, .def = "",
	  .help = "number of workers: sets min_workers and max_workers; one per CPU if not set" },
	{ POOL("min_workers", min_workers), COUNT(1, 4096), .def = "",
	  .help = "workers kept warm" },
	{ POOL("max_workers", max_workers), COUNT(1, 4096), .def = "",
	  .help = "never more workers than these" },
	{ POOL("boot_timeout", boot_timeout_ns), TIME(NSEC_PER_MSEC), .off_ok = true, .def = "30s",
	  .help = "from the start of a worker to its ready message" },
	{ POOL("queue_timeout", queue_timeout_ns), TIME(NSEC_PER_MSEC), .off_ok = true, .def = "5s",
	  .help = "from the arrival of a request to a worker" },
	{ POOL("exec_timeout", exec_timeout_ns), TIME(NSEC_PER_MSEC), .off_ok = true, .def = "1m",
	  .help = "to send, execute and receive; then the worker is killed" },
	{ POOL("stop_timeout", stop_timeout_ns), TIME(0), .def = "10s",
	  .help = "from asking a worker to stop until SIGKILL; SIGTERM at half of it" },
	{ POOL("cancel_grace", cancel_grace_ns), TIME(0), .def = "1s",
	  .help = "time a worker has to answer a cancelled request" },
	{ POOL("queue_max", queue_max), COUNT(1, 1u << 20), .def = "",
	  .help = "requests that may wait; 64 per worker if not set" },
	{ POOL("queue_max_bytes", queue_max_bytes),
	  SIZE(urd_pool_conf, queue_max_bytes, 1, 1024 * GIB), .def = "256MiB",
	  .help = "bytes of requests that may wait" },
	{ POOL("max_request", request_max), SIZE(urd_pool_conf, request_max, 64, URD_REQUEST_MAX),
	  .def = "16MiB", .help = "largest request, in bytes" },
	{ POOL("max_response", response_max),
	  SIZE(urd_pool_conf, response_max, 64, URD_RESPONSE_MAX), .def = "64MiB",
	  .help = "largest answer, in bytes" },
	{ POOL("backoff_min", backoff_min_ns), TIME(NSEC_PER_MSEC), .def = "100ms",
	  .help = "wait after the first failed start of a worker; doubles" },
	{ POOL("backoff_max", backoff_max_ns), TIME(NSEC_PER_MSEC), .def = "30s",
	  .help = "longest wait after failed starts" },
	{ POOL("on_client_gone", gone), WORD(gone_words), .def = "ignore",
	  .help = "a running request whose caller left: ignore, notify or kill" },
	{ POOL("scale_after", scale_after_ns), TIME(0), .off_ok = true, .def = "50ms",
	  .help = "a request that waits longer starts another worker, up to max_workers" },
	{ POOL("idle_timeout", idle_timeout_ns), TIME(NSEC_PER_MSEC), .off_ok = true, .def = "1m",
	  .help = "a worker above min_workers that is idle for so long leaves" },
	{ POOL("heartbeat_timeout", heartbeat_timeout_ns), TIME(NSEC_PER_MSEC), .off_ok = true,
	  .def = "off", .help = "a busy worker that does not beat for so long is killed" },
	{ POOL("stream_gap", stream_gap_ns), TIME(NSEC_PER_MSEC), .off_ok = true, .def = "off",
	  .help = "longest wait for the next chunk of a streamed answer" },
	{ POOL("max_jobs", max_jobs), COUNT(0, 1u << 30), .def = "0",
	  .help = "requests that a worker is given before it is replaced; 0: no limit" },
	{ POOL("ttl", ttl_ns), TIME(NSEC_PER_MSEC), .off_ok = true, .def = "off",
	  .help = "age at which a worker is replaced" },
	{ POOL("jitter", jitter_percent), COUNT(0, 90), .def = "20",
	  .help = "percent by which max_jobs and ttl are shortened at most, at random" },
	{ POOL("memory_soft", memory_soft), SIZE(urd_pool_conf, memory_soft, 0, 1024 * GIB),
	  .def = "0", .help = "resident memory after a request above which a worker is "
			      "replaced; 0: no limit" },
	{ POOL("memory_hard", memory_hard), SIZE(urd_pool_conf, memory_hard, 0, 1024 * GIB),
	  .def = "0", .help = "resident memory during a request above which a worker is "
			      "killed; 0: no limit" },
	{ POOL("recycle_max", recycle_max), COUNT(0, 4096), .def = "0",
	  .help = "workers that may be away at once for being replaced; 0: a tenth, at least 1" },
	{ POOL("max_surge", max_surge), COUNT(0, 4096), .def = "1",
	  .help = "extra workers while others are replaced; 0: the old one leaves first" },
	{ POOL("user", user), .type = URD_KEY_STRING, .def = "",
	  .help = "user that workers run as, name or number; urd's own if not set" },
	{ POOL("group", group), .type = URD_KEY_STRING, .def = "",
	  .help = "group that workers run as, name or number; the main group of user if not set" },
	{ POOL("umask", umask), .type = URD_KEY_OCTAL, .max = 0777, .def = "",
	  .help = "permission bits that new files of workers do not get, as in 0027; urd's own if "
		  "not set" },
	{ POOL("nice", nice), .type = URD_KEY_SIGNED, .min = (u64)-20, .max = 19, .def = "",
	  .help = "niceness of workers, -20 to 19; urd's own if not set" },
	{ POOL("oom_score_adj", oom_score_adj), .type = URD_KEY_SIGNED, .min = (u64)-1000,
	  .max = 1000, .def = "",
	  .help = "who is killed first when memory runs out, -1000 to 1000; 200 above urd's own "
		  "if not set" },
	{ POOL("no_new_privs", no_new_privs), .type = URD_KEY_SWITCH, .def = "",
	  .help = "set-user-ID programs gain nothing in workers; true if user is set, else false" },
	{ RLIMIT("rlimit_nofile", rlimit_nofile, URD_KEY_COUNT, 16, 1u << 30), .def = "",
	  .help = "open files of a worker; urd's own before it raised it, if not set" },
	{ RLIMIT("rlimit_core", rlimit_core, URD_KEY_SIZE, 0, 1024 * GIB), .def = "",
	  .help = "size of a core dump; urd's own if not set" },
	{ RLIMIT("rlimit_as", rlimit_as, URD_KEY_SIZE, 1 * MIB, 1ull << 50), .def = "",
	  .help = "address space of a worker; urd's own if not set" },
	{ RLIMIT("rlimit_cpu", rlimit_cpu_ns, URD_KEY_DURATION, NSEC_PER_SEC, INT64_MAX), .def = "",
	  .help = "processor time of a worker, in whole seconds; urd's own if not set" },
	{ RLIMIT("rlimit_nproc", rlimit_nproc, URD_KEY_COUNT, 1, 1u << 30), .def = "",
	  .help = "processes that the user may have, all counted; urd's own if not set" },
};

/* Words of others, and what to write here. */
static const struct {
	const char *theirs;
	const char *ours;
} foreign[] = {
	{ "num_workers", "workers" }, { "count", "workers" }, { "processes", "workers" },
	{ "numprocs", "workers" }, { "pm.max_children", "max_workers" },
	{ "max_children", "max_workers" }, { "max_worker_count", "max_workers" },
	{ "pm.start_servers", "min_workers" }, { "pm.min_spare_servers", "min_workers" },
	{ "cheaper", "min_workers" }, { "spare", "min_workers" },
	{ "allocate_timeout", "boot_timeout and queue_timeout" },
	{ "start_timeout", "boot_timeout" }, { "ready_timeout", "boot_timeout" },
	{ "spawn_timeout", "boot_timeout" },
	{ "exec_ttl", "exec_timeout" }, { "harakiri", "exec_timeout" },
	{ "request_terminate_timeout", "exec_timeout" }, { "timeout", "exec_timeout" },
	{ "request_timeout", "exec_timeout" }, { "limits.timeout", "exec_timeout" },
	{ "destroy_timeout", "stop_timeout" }, { "graceful_timeout", "stop_timeout" },
	{ "graceful-timeout", "stop_timeout" }, { "reload-mercy", "stop_timeout" },
	{ "worker-reload-mercy", "stop_timeout" }, { "process_control_timeout", "stop_timeout" },
	{ "shutdown_timeout", "drain_timeout" },
	{ "max_queue_size", "queue_max" }, { "queue_size", "queue_max" },
	{ "backlog", "queue_max" },
	{ "listen.backlog", "queue_max" }, { "max_payload_size", "max_request" },
	{ "limit-post", "max_request" }, { "max_frame_size", "max_request and max_response" },
	{ "chdir", "cwd" }, { "working_directory", "cwd" }, { "directory", "cwd" },
	{ "environment", "env" }, { "raw_env", "env" }, { "executable", "command" },
	{ "exec", "command" }, { "script", "command" }, { "on_disconnect", "on_client_gone" },
	{ "max_requests", "max_jobs" }, { "pm.max_requests", "max_jobs" },
	{ "max-requests", "max_jobs" }, { "max_requests_jitter", "jitter" },
	{ "max_jobs_jitter", "jitter" }, { "max-requests-delta", "jitter" },
	{ "idle_ttl", "idle_timeout" }, { "process_idle_timeout", "idle_timeout" },
	{ "max-worker-lifetime", "ttl" }, { "lifetime", "ttl" },
	{ "max_worker_memory", "memory_soft" }, { "max_memory_mb", "memory_soft" },
	{ "reload-on-rss", "memory_soft" }, { "evil-reload-on-rss", "memory_hard" },
	{ "limit-as", "rlimit_as" },
	{ "bind", "listen" }, { "socket", "listen" }, { "listeners", "listen" },
	{ "http-socket", "listen" }, { "address", "listen" },
	{ "listen.mode", "listen with ?mode=0660" }, { "listen.owner", "listen with ?owner=NAME" },
	{ "listen.group", "listen with ?group=NAME" }, { "chmod-socket", "listen with ?mode=0660" },
	{ "uid", "user" }, { "run_as", "user" }, { "gid", "group" },
	{ "rlimit_files", "rlimit_nofile" }, { "LimitNOFILE", "rlimit_nofile" },
	{ "limit-nproc", "rlimit_nproc" }, { "process.priority", "nice" },
	{ "OOMScoreAdjust", "oom_score_adj" }, { "NoNewPrivileges", "no_new_privs" },
	{ "loglevel", "level in log { }" }, { "log_level", "level in log { }" },
	{ "logs", "log { }" }, { "pools", "pool \"NAME\" { }" }, { "app", "pool \"NAME\" { }" },
	{ "server", "pool \"NAME\" { }" }, { "worker", "pool \"NAME\" { }" },
};
/* clang-format on */

const u32 urd_keys_nr = ARRAY_SIZE(urd_keys);

_Static_assert(ARRAY_SIZE(urd_keys) <= URD_KEYS_MAX, "arrays by row are too short");

const char *urd_section_name(enum urd_section section)
{
	static const char *const names[URD_SECTION_NR] = {
		[URD_SECTION_ROOT] = "",
		[URD_SECTION_LOG] = "log",
		[URD_SECTION_POOL] = "pool",
	};

	urd_assert(section < URD_SECTION_NR);
	return names[section];
}

const struct urd_key *urd_key_find(enum urd_section section, const char *name)
{
	for (u32 i = 0; i < urd_keys_nr; i++) {
		if (urd_keys[i].section == section && !strcmp(urd_keys[i].name, name))
			return &urd_keys[i];
	}
	return NULL;
}

/* A key of that name in another section. */
static const struct urd_key *key_elsewhere(enum urd_section section, const char *name)
{
	for (u32 i = 0; i < urd_keys_nr; i++) {
		if (urd_keys[i].section != section && !strcmp(urd_keys[i].name, name))
			return &urd_keys[i];
	}
	return NULL;
}

void urd_key_advise(enum urd_section section, const char *name, char *buf, size_t len)
{
	const struct urd_key *other = key_elsewhere(section, name);
	struct urd_suggest s;

	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		if (!strcmp(foreign[i].theirs, name)) {
			snprintf(buf, len, "here it is called %s", foreign[i].ours);
			return;
		}
	}
	if (other) {
		static const char *const places[URD_SECTION_NR] = {
			[URD_SECTION_ROOT] = "at the top, outside of sections",
			[URD_SECTION_LOG] = "into log { }",
			[URD_SECTION_POOL] = "into a pool \"NAME\" { }",
		};

		snprintf(buf, len, "it belongs %s", places[other->section]);
		return;
	}
	urd_suggest_init(&s, name);
	for (u32 i = 0; i < urd_keys_nr; i++) {
		if (urd_keys[i].section == section)
			urd_suggest_try(&s, urd_keys[i].name);
	}
	if (section == URD_SECTION_ROOT) {
		urd_suggest_try(&s, "pool");
		urd_suggest_try(&s, "log");
		urd_suggest_try(&s, "include");
	}
	if (s.best) {
		snprintf(buf, len, "did you mean \"%s\"?", s.best);
		return;
	}
	for (u32 i = 0; i < urd_keys_nr; i++)
		urd_suggest_try(&s, urd_keys[i].name);
	if (s.best)
		snprintf(buf, len, "did you mean \"%s\" of another section?", s.best);
	else
		snprintf(buf, len, "see \"urd run --help\" for the keys there are");
}
