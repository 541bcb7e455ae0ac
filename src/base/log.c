// SPDX-License-Identifier: MIT
/*
 * A ring of bytes under a mutex, and the thread that writes it out.  Logging is
 * no part of the way of a request, so a lock is good enough here.
 */
#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Bytes that may wait for a stalled sink. */
#define LOG_BUFFER (1u << 20)
/* Longest line, tags included; a worker's line may be 16 KiB and double as JSON. */
#define LOG_LINE_MAX 40960u
/* How long urd_log_close() waits for a stalled sink, ms. */
#define LOG_CLOSE_MS 1000

struct urd_log {
	enum urd_log_level level;
	enum urd_log_format format;
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	bool closing;
	u64 dropped;
	u32 head; /* next byte to write out */
	u32 len;  /* bytes waiting */
	char buf[LOG_BUFFER];
};

static const char *const level_names[] = { "error", "warn", "info", "debug" };

static bool log_is_closing(struct urd_log *log)
{
	bool closing;

	pthread_mutex_lock(&log->lock);
	closing = log->closing;
	pthread_mutex_unlock(&log->lock);
	return closing;
}

/*
 * Write all of it, waiting for the sink; what a dead one does not take is lost.
 * False if it is to be closed and still stalls.  The sink is mostly a blocking
 * pipe that is not ours to change: one that polls as writable takes PIPE_BUF bytes.
 */
static bool log_write(struct urd_log *log, const char *p, u32 len)
{
	while (len) {
		struct pollfd pfd = { .fd = log->fd, .events = POLLOUT };
		bool closing = log_is_closing(log);
		ssize_t n;

		if (poll(&pfd, 1, LOG_CLOSE_MS) == 0) {
			if (closing)
				return false;
			continue;
		}
		n = write(log->fd, p, urd_min(len, (u32)PIPE_BUF));
		if (n > 0) {
			p += n;
			len -= (u32)n;
		} else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
			break;
		}
	}
	return true;
}

static void *log_thread(void *arg)
{
	struct urd_log *log = arg;
	static __thread char out[65536];
	bool taken = true;

	pthread_mutex_lock(&log->lock);
	for (;;) {
		u64 dropped;
		u32 n;

		while (!log->len && !log->dropped && !log->closing)
			pthread_cond_wait(&log->more, &log->lock);
		if (!taken || (!log->len && !log->dropped))
			break;
		n = urd_min(log->len, LOG_BUFFER - log->head);
		n = urd_min(n, (u32)sizeof(out));
		memcpy(out, log->buf + log->head, n);
		log->head = (log->head + n) % LOG_BUFFER;
		log->len -= n;
		dropped = log->len ? 0 : log->dropped;
		if (dropped)
			log->dropped = 0;
		pthread_mutex_unlock(&log->lock);
		taken = log_write(log, out, n);
		if (taken && dropped) {
			char line[80];
			int k = snprintf(line, sizeof(line), "urd: %llu log lines were dropped\n",
					 (unsigned long long)dropped);

			taken = log_write(log, line, (u32)k);
		}
		pthread_mutex_lock(&log->lock);
	}
	pthread_mutex_unlock(&log->lock);
	return NULL;
}

int urd_log_open(enum urd_log_level level, enum urd_log_format format, int fd,
		 struct urd_log **logp)
{
	struct urd_log *log = calloc(1, sizeof(*log));
	sigset_t all, old;
	int ret = 0;

	if (!log)
		return -ENOMEM;
	log->level = level;
	log->format = format;
	log->fd = fd;
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->more, NULL);
	if (fd >= 0) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		ret = -pthread_create(&log->thread, NULL, log_thread, log);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (ret) {
		free(log);
		return ret;
	}
	*logp = log;
	return 0;
}

void urd_log_close(struct urd_log *log)
{
	if (!log)
		return;
	if (log->fd >= 0) {
		pthread_mutex_lock(&log->lock);
		log->closing = true;
		pthread_cond_signal(&log->more);
		pthread_mutex_unlock(&log->lock);
		pthread_join(log->thread, NULL);
	}
	pthread_cond_destroy(&log->more);
	pthread_mutex_destroy(&log->lock);
	free(log);
}

bool urd_log_wants(const struct urd_log *log, enum urd_log_level level)
{
	return log && log->fd >= 0 && level <= log->level;
}

static void log_push(struct urd_log *log, const char *line, u32 len)
{
	u32 tail, first;

	pthread_mutex_lock(&log->lock);
	if (len > LOG_BUFFER - log->len) {
		log->dropped++;
	} else {
		tail = (log->head + log->len) % LOG_BUFFER;
		first = urd_min(len, LOG_BUFFER - tail);
		memcpy(log->buf + tail, line, first);
		memcpy(log->buf, line + first, len - first);
		log->len += len;
	}
	pthread_cond_signal(&log->more);
	pthread_mutex_unlock(&log->lock);
}

/* A line under construction; what does not fit is cut. */
struct line {
	char *p;
	u32 len;
	u32 cap;
};

static void line_char(struct line *l, char c)
{
	if (l->len < l->cap)
		l->p[l->len++] = c;
}

static void URD_PRINTF(2, 3) line_add(struct line *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->p + l->len, l->cap - l->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->len = urd_min(l->len + (u32)n, l->cap - 1);
}

/* One text as a JSON string; control bytes and non-ASCII that is not UTF-8 are escaped. */
static void line_json(struct line *l, const char *s)
{
	static const char hex[] = "0123456789abcdef";

	line_char(l, '"');
	for (; *s; s++) {
		u8 c = (u8)*s;

		if (c == '"' || c == '\\') {
			line_char(l, '\\');
			line_char(l, (char)c);
		} else if (c < 0x20 || c >= 0x7f) {
			line_add(l, "\\u00%c%c", hex[c >> 4], hex[c & 15]);
		} else {
			line_char(l, (char)c);
		}
	}
	line_char(l, '"');
}

/* Text of strangers on a terminal: no control bytes but tabs. */
static void line_text(struct line *l, const char *s)
{
	for (; *s; s++)
		line_char(l, ((u8)*s < 0x20 && *s != '\t') || *s == 0x7f ? '?' : *s);
}

static void line_time(struct line *l)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	line_add(l, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
		 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(ts.tv_nsec / 1000000));
}

static void line_tags_text(struct line *l, const struct urd_tags *t)
{
	if (t->pool)
		line_add(l, " pool=%s", t->pool);
	if (t->pid || t->has_worker)
		line_add(l, " worker=%u", t->worker);
	if (t->pid)
		line_add(l, " pid=%d", t->pid);
	if (t->stream)
		line_add(l, " %s", t->stream);
}

static void line_tags_json(struct line *l, const struct urd_tags *t)
{
	if (t->pool) {
		line_add(l, ",\"pool\":");
		line_json(l, t->pool);
	}
	if (t->pid || t->has_worker)
		line_add(l, ",\"worker\":%u", t->worker);
	if (t->pid)
		line_add(l, ",\"pid\":%d", t->pid);
	if (t->stream)
		line_add(l, ",\"stream\":\"%s\"", t->stream);
}

void urd_log_line(struct urd_log *log, enum urd_log_level level, const struct urd_tags *tags,
		  const char *fmt, ...)
{
	static __thread char text[LOG_LINE_MAX / 2];
	static __thread char out[LOG_LINE_MAX];
	struct line l = { .p = out, .cap = sizeof(out) - 3 };
	va_list ap;

	if (!urd_log_wants(log, level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (log->format == URD_LOG_JSON) {
		line_add(&l, "{\"time\":\"");
		line_time(&l);
		line_add(&l, "\",\"level\":\"%s\"", level_names[level]);
		if (tags)
			line_tags_json(&l, tags);
		line_add(&l, ",\"msg\":");
		line_json(&l, text);
		l.cap += 2; /* the end is never cut */
		line_char(&l, '}');
	} else {
		line_time(&l);
		line_add(&l, " %-5s", level_names[level]);
		if (tags)
			line_tags_text(&l, tags);
		line_add(&l, tags ? ": " : " ");
		line_text(&l, text);
		l.cap += 2;
	}
	line_char(&l, '\n');
	log_push(log, out, l.len);
}
