/* SPDX-License-Identifier: MIT */
/*
 * The small change of the measuring programs: growing buffers, frames, a worker
 * over four pipes, a histogram of latencies and the report.  Each program under
 * perf/ is one C file plus this header; none of them links urd, so that a fault
 * of urd cannot hide in its own measurement.  Whatever fails ends the process.
 */
#ifndef URD_PERF_H
#define URD_PERF_H

#include "base/base.h"
#include "urd/wire.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/** perf_die - print a sentence and errno's text, if errno is set, and leave with 2 */
__attribute__((noreturn)) URD_PRINTF(1, 2) static inline void perf_die(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (err)
		fprintf(stderr, ": %s", strerror(err));
	fputc('\n', stderr);
	exit(2);
}

/** perf_now_ns - CLOCK_MONOTONIC in nanoseconds */
static inline u64 perf_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * NSEC_PER_SEC + (u64)ts.tv_nsec;
}

/** perf_random - the next number of a seeded sequence */
static inline u64 perf_random(u64 *state)
{
	u64 z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/** perf_number - a whole decimal number within limits, or the end */
static inline u64 perf_number(const char *s, u64 min, u64 max)
{
	char *end;
	u64 v;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno || end == s || *end || *s == '-' || v < min || v > max) {
		errno = 0;
		perf_die("%s: not a number from %" PRIu64 " to %" PRIu64, s, min, max);
	}
	return v;
}

/** perf_seconds - a decimal fraction of seconds as nanoseconds, at most a day */
static inline u64 perf_seconds(const char *s)
{
	char *end;
	double v = strtod(s, &end);

	errno = 0;
	if (end == s || *end || !(v >= 0) || v > 86400)
		perf_die("%s: not a number of seconds", s);
	return (u64)(v * (double)NSEC_PER_SEC);
}

/** struct perf_buf - bytes from @start to @end of @cap allocated ones */
struct perf_buf {
	u8 *p;
	size_t start;
	size_t end;
	size_t cap;
};

static inline size_t perf_buf_len(const struct perf_buf *b)
{
	return b->end - b->start;
}

static inline u8 *perf_buf_head(const struct perf_buf *b)
{
	return b->p + b->start;
}

static inline void perf_buf_reset(struct perf_buf *b)
{
	b->start = 0;
	b->end = 0;
}

static inline void perf_buf_take(struct perf_buf *b, size_t len)
{
	b->start += len;
	if (b->start == b->end)
		perf_buf_reset(b);
}

/** perf_buf_reserve - make room for @more bytes behind the end */
static inline void perf_buf_reserve(struct perf_buf *b, size_t more)
{
	size_t len = perf_buf_len(b);
	size_t cap = b->cap ? b->cap : 64u << 10;

	if (b->cap - b->end >= more)
		return;
	if (b->start) {
		memmove(b->p, perf_buf_head(b), len);
		b->start = 0;
		b->end = len;
	}
	if (b->cap - len >= more)
		return;
	while (cap - len < more)
		cap *= 2;
	b->p = realloc(b->p, cap);
	if (!b->p)
		perf_die("no memory for %zu bytes", cap);
	b->cap = cap;
}

static inline void perf_buf_add(struct perf_buf *b, const void *p, size_t len)
{
	perf_buf_reserve(b, len);
	memcpy(b->p + b->end, p, len);
	b->end += len;
}

/** perf_frame_bytes - the first frame's bytes with its header; 0 if that is not here yet */
static inline size_t perf_frame_bytes(const struct perf_buf *b)
{
	u32 len;

	if (perf_buf_len(b) < URD_FRAME_HEADER)
		return 0;
	len = get_be32(perf_buf_head(b));
	if (!len || len > URD_RESPONSE_MAX) {
		errno = 0;
		perf_die("a frame of %" PRIu32 " bytes", len);
	}
	return (size_t)len + URD_FRAME_HEADER;
}

/** perf_frame_ready - bytes of the first frame if it is here in full, else 0 */
static inline size_t perf_frame_ready(const struct perf_buf *b)
{
	size_t bytes = perf_frame_bytes(b);

	return bytes && bytes <= perf_buf_len(b) ? bytes : 0;
}

/**
 * perf_buf_read - one read(2) behind the end of @b
 *
 * There is always room for the rest of the first frame, and for a page at least.
 * Return: bytes, 0 at the end of the stream, -errno.
 */
static inline ssize_t perf_buf_read(struct perf_buf *b, int fd)
{
	size_t frame = perf_frame_bytes(b);
	size_t len = perf_buf_len(b);
	ssize_t n;

	perf_buf_reserve(b, urd_max(frame > len ? frame - len : 0, (size_t)4096));
	n = read(fd, b->p + b->end, b->cap - b->end);
	if (n < 0)
		return -errno;
	b->end += (size_t)n;
	return n;
}

/** perf_write_all - blocking write of everything.  Return: 0, -errno */
static inline int perf_write_all(int fd, const u8 *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/**
 * perf_frame_read - blocking read until the first frame is complete
 *
 * Return: its bytes with the header, 0 at a clean end, -errno.
 */
static inline ssize_t perf_frame_read(struct perf_buf *b, int fd)
{
	size_t bytes;

	while (!(bytes = perf_frame_ready(b))) {
		ssize_t n = perf_buf_read(b, fd);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		if (!n)
			return perf_buf_len(b) ? -EPIPE : 0;
	}
	return (ssize_t)bytes;
}

/** perf_uint_read - a MessagePack unsigned number.  Return: bytes taken, 0 if it is none */
static inline size_t perf_uint_read(const u8 *p, size_t len, u32 *v)
{
	if (len >= 1 && p[0] < 0x80) {
		*v = p[0];
		return 1;
	}
	if (len >= 2 && p[0] == 0xcc) {
		*v = p[1];
		return 2;
	}
	if (len >= 3 && p[0] == 0xcd) {
		*v = (u32)p[1] << 8 | p[2];
		return 3;
	}
	if (len >= 5 && p[0] == 0xce) {
		*v = get_be32(p + 1);
		return 5;
	}
	return 0;
}

/** perf_bin_head - the header of a MessagePack bin of @len bytes.  Return: its bytes */
static inline size_t perf_bin_head(u8 p[5], u32 len)
{
	if (len < 1u << 8) {
		p[0] = 0xc4;
		p[1] = (u8)len;
		return 2;
	}
	if (len < 1u << 16) {
		p[0] = 0xc5;
		p[1] = (u8)(len >> 8);
		p[2] = (u8)len;
		return 3;
	}
	p[0] = 0xc6;
	put_be32(p + 1, len);
	return 5;
}

/** perf_request_head - all of a request frame but its params; @method has at most 31 bytes */
static inline size_t perf_request_head(u8 p[64], u32 msgid, const char *method, size_t params_bytes)
{
	size_t method_bytes = strlen(method);
	size_t n = URD_FRAME_HEADER;

	p[n++] = 0x94;
	p[n++] = URD_TAG_REQUEST;
	p[n++] = 0xce;
	put_be32(p + n, msgid);
	n += 4;
	p[n++] = (u8)(0xa0 | method_bytes);
	memcpy(p + n, method, method_bytes);
	n += method_bytes;
	put_be32(p, (u32)(n - URD_FRAME_HEADER + params_bytes));
	return n;
}

static inline void perf_unix_address(struct sockaddr_un *sun, const char *path)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	errno = 0;
	if (strlen(path) >= sizeof(sun->sun_path))
		perf_die("%s: the path is too long for a socket", path);
	memcpy(sun->sun_path, path, strlen(path));
}

/** perf_listen - a Unix listener at @path, replacing a socket that is there */
static inline int perf_listen(const char *path, int flags)
{
	struct sockaddr_un sun;
	int fd;

	perf_unix_address(&sun, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	unlink(path);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&sun, sizeof(sun)) < 0 ||
	    listen(fd, 1024) < 0)
		perf_die("cannot listen at %s", path);
	return fd;
}

/** struct perf_worker - our ends of a worker's pipes */
struct perf_worker {
	pid_t pid;
	int request_fd;
	int answer_fd;
};

/* In the child: put the four descriptors where the protocol wants them, and become the worker. */
__attribute__((noreturn)) static inline void perf_worker_exec(const int from[4], char *const argv[])
{
	int high[4];
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < 4; i++)
		high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 10);
	for (i = 0; i < 4; i++)
		if (high[i] < 0 || dup2(high[i], 3 + i) < 0)
			_exit(126);
	setenv("URD_PROTOCOL", "1", 1);
	setenv("URD_TASK_IN_FD", "3", 1);
	setenv("URD_TASK_OUT_FD", "4", 1);
	setenv("URD_CONTROL_IN_FD", "5", 1);
	setenv("URD_CONTROL_OUT_FD", "6", 1);
	execvp(argv[0], argv);
	_exit(127);
}

/** perf_worker_start - start a worker of the native protocol and wait until it is ready */
static inline void perf_worker_start(struct perf_worker *w, char *const argv[])
{
	int request[2], answer[2], down[2], up[2];
	struct perf_buf ready = { 0 };

	if (pipe2(request, O_CLOEXEC) || pipe2(answer, O_CLOEXEC) || pipe2(down, O_CLOEXEC) ||
	    pipe2(up, O_CLOEXEC))
		perf_die("no pipe for a worker");
	w->pid = fork();
	if (w->pid < 0)
		perf_die("cannot fork");
	if (!w->pid)
		perf_worker_exec((int[4]){ request[0], answer[1], down[0], up[1] }, argv);
	close(request[0]);
	close(answer[1]);
	close(down[0]);
	close(up[1]);
	w->request_fd = request[1];
	w->answer_fd = answer[0];
	errno = 0;
	if (perf_frame_read(&ready, up[0]) <= 0 || perf_buf_head(&ready)[5] != URD_TAG_NOTIFY)
		perf_die("%s did not say that it is ready", argv[0]);
	free(ready.p);
}

/* The upper half of 256 buckets serves each octave: no latency is off by more than 0.8 %. */
#define PERF_HIST_SUB 256u
#define PERF_HIST_OCTAVES 36u

/** struct perf_hist - how often each latency occurred */
struct perf_hist {
	u64 count[PERF_HIST_SUB * PERF_HIST_OCTAVES];
	u64 total;
	u64 sum_ns;
	u64 max_ns;
};

static inline void perf_hist_add(struct perf_hist *h, u64 ns)
{
	u32 shift = ns < PERF_HIST_SUB ? 0 : 64 - 8 - (u32)__builtin_clzll(ns);
	u64 i = (u64)shift * PERF_HIST_SUB + (ns >> shift);

	h->count[urd_min(i, (u64)ARRAY_SIZE(h->count) - 1)]++;
	h->total++;
	h->sum_ns += ns;
	h->max_ns = urd_max(h->max_ns, ns);
}

/** perf_hist_us - the latency in us that @per_mille of all do not exceed */
static inline double perf_hist_us(const struct perf_hist *h, u32 per_mille)
{
	u64 rank = (h->total * per_mille + 999) / 1000;
	u64 seen = 0;
	u64 i, ns;

	for (i = 0; i < ARRAY_SIZE(h->count); i++) {
		seen += h->count[i];
		if (h->total && seen >= rank)
			break;
	}
	if (i == ARRAY_SIZE(h->count))
		return 0;
	/* the bucket's last value, so that no quantile is flattered */
	ns = ((i % PERF_HIST_SUB + 1) << i / PERF_HIST_SUB) - 1;
	return (double)urd_min(ns, h->max_ns) / 1e3;
}

/** struct perf_report - what a run found */
struct perf_report {
	const struct perf_hist *hist;
	u64 elapsed_ns;
	u64 requests_all; /* with those of the warm-up */
	u64 payload_bytes;
	u64 mismatches;
	u64 missing;
	u64 errors;
};

/** perf_report_print - one line for people, or one of JSON.  Return: exit status */
static inline int perf_report_print(const struct perf_report *r, bool json)
{
	const struct perf_hist *h = r->hist;
	double sec = (double)r->elapsed_ns / 1e9;
	double rate = sec > 0 ? (double)h->total / sec : 0;
	struct rusage ru;
	double cpu_us;

	getrusage(RUSAGE_SELF, &ru);
	cpu_us = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1e6 +
		 (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
	if (json)
		printf("{\"requests\": %" PRIu64 ", \"requests_all\": %" PRIu64
		       ", \"elapsed_s\": %.6f, \"req_s\": %.1f, \"mib_s\": %.2f"
		       ", \"mean_us\": %.2f, \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f"
		       ", \"p999_us\": %.2f, \"max_us\": %.2f, \"client_cpu_us\": %.0f"
		       ", \"mismatches\": %" PRIu64 ", \"missing\": %" PRIu64
		       ", \"errors\": %" PRIu64 "}\n",
		       h->total, r->requests_all, sec, rate,
		       sec > 0 ? (double)r->payload_bytes / sec / 1048576 : 0,
		       h->total ? (double)h->sum_ns / (double)h->total / 1e3 : 0,
		       perf_hist_us(h, 500), perf_hist_us(h, 900), perf_hist_us(h, 990),
		       perf_hist_us(h, 999), (double)h->max_ns / 1e3, cpu_us, r->mismatches,
		       r->missing, r->errors);
	else
		printf("%" PRIu64 " requests in %.3f s: %.0f req/s, us p50 %.1f p90 %.1f p99 %.1f "
		       "p99.9 %.1f max %.1f; mismatches %" PRIu64 ", missing %" PRIu64
		       ", errors %" PRIu64 "\n",
		       h->total, sec, rate, perf_hist_us(h, 500), perf_hist_us(h, 900),
		       perf_hist_us(h, 990), perf_hist_us(h, 999), (double)h->max_ns / 1e3,
		       r->mismatches, r->missing, r->errors);
	return r->mismatches || r->missing || r->errors;
}

#endif /* URD_PERF_H */
