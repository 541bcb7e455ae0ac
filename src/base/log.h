/* SPDX-License-Identifier: MIT */
/*
 * The log.  A line is formatted by whoever has something to say and written by
 * a thread of the log's own, so that a ring thread never waits for a terminal,
 * a pipe or a disk.  The buffer between them is bounded: when the sink stalls,
 * lines are dropped and counted, and the count is told when it moves again.
 *
 * Any thread may log.  Nothing is written, and nobody wakes, while all is quiet.
 */
#ifndef URD_LOG_H
#define URD_LOG_H

#include <urd/urd.h>

#include "base/base.h"

struct urd_log;

/**
 * struct urd_tags - whom a line is about
 * @pool: name, or NULL
 * @worker: slot number; meaningful if @pid is not 0 or @has_worker
 * @pid: process, 0 for none
 * @stream: "stdout" or "stderr" for a line of a worker's own, or NULL
 */
struct urd_tags {
	const char *pool;
	u32 worker;
	bool has_worker;
	int pid;
	const char *stream;
};

/**
 * urd_log_open - start a log
 * @level: what is less urgent is not logged
 * @format: how lines look
 * @fd: where to; -1 for nowhere (and no thread). Not closed.
 * @log: set to the log
 *
 * Return: 0, -ENOMEM, -EAGAIN (no thread).
 */
int urd_log_open(enum urd_log_level level, enum urd_log_format format, int fd,
		 struct urd_log **log) URD_MUST_CHECK;

/**
 * urd_log_close - write what is buffered, for at most a second, and stop
 *
 * NULL is fine.
 */
void urd_log_close(struct urd_log *log);

/** urd_log_wants - would a line of this level be logged? */
bool urd_log_wants(const struct urd_log *log, enum urd_log_level level);

/**
 * urd_log_line - log one line
 * @log: the log
 * @level: how urgent
 * @tags: whom it is about, or NULL
 * @fmt: fact and key=value pairs, no newline at the end
 */
void urd_log_line(struct urd_log *log, enum urd_log_level level, const struct urd_tags *tags,
		  const char *fmt, ...) URD_PRINTF(4, 5);

#define pr_err(log, tags, ...) urd_log_line(log, URD_LOG_ERROR, tags, __VA_ARGS__)
#define pr_warn(log, tags, ...) urd_log_line(log, URD_LOG_WARN, tags, __VA_ARGS__)
#define pr_info(log, tags, ...) urd_log_line(log, URD_LOG_INFO, tags, __VA_ARGS__)
#define pr_debug(log, tags, ...)                                             \
	do {                                                                 \
		if (urd_log_wants(log, URD_LOG_DEBUG))                       \
			urd_log_line(log, URD_LOG_DEBUG, tags, __VA_ARGS__); \
	} while (0)

#endif /* URD_LOG_H */
