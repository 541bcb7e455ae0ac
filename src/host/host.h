/* SPDX-License-Identifier: MIT */
/*
 * A running urd: a core, its clients, and the loop that turns them.  The public
 * calls of urd.h are here; the daemon uses a few more.
 */
#ifndef URD_HOST_H
#define URD_HOST_H

#include <pthread.h>
#include <stdatomic.h>

#include <urd/urd.h>

#include "front/front.h"
#include "pool/core.h"

/** Descriptors that a program may have watched by the loop. */
#define URD_HOST_WATCH_MAX 8

/** typedef urd_readable_fn - a watched descriptor is readable */
typedef void (*urd_readable_fn)(int fd, void *arg);

/** struct urd_watch - one watched descriptor */
struct urd_watch {
	struct urd_op op;
	int fd;
	urd_readable_fn fn;
	void *arg;
};

/**
 * struct urd_request - a call of this process on its way
 * @node: in urd->inbox until the ring thread takes it
 * @call: copied, strings and params behind the struct
 * @job: once it has one
 */
struct urd_request {
	struct urd_list node;
	struct urd_call call;
	urd_done_fn done;
	void *arg;
};

/** struct urd - see the file comment */
struct urd {
	struct urd_core core;
	struct urd_front front;
	struct urd_log *log;
	unsigned int flags;
	pthread_t owner; /* the thread that turns the ring */
	struct urd_watch watch[URD_HOST_WATCH_MAX];
	u32 watch_nr;
	struct urd_timer drain_timer;
	u64 drain_due_ns;
	bool draining;
	bool drained;

	/* between threads; unused with URD_OPEN_LOOP */
	pthread_mutex_t lock;
	pthread_cond_t drained_cond;
	struct urd_list inbox;
	u32 inbox_nr;
	bool wants_drain;
	u64 wants_drain_ns;
	bool over; /* the thread has ended */
	int doorbell;
	struct urd_op doorbell_op;
	u64 doorbell_count;
	_Atomic u32 *ready;		 /* per pool: a snapshot for other threads */
	const struct urd_conf *starting; /* while the thread starts */
	int start_ret;
	char *err;
	size_t err_len;
};

/**
 * urd_on_readable - have the loop watch a descriptor
 * @urd: opened with URD_OPEN_LOOP
 * @fd: stays the caller's
 * @fn: called from the loop
 * @arg: handed to it
 *
 * Return: 0 or -ENOSPC.
 */
URD_API int urd_on_readable(struct urd *urd, int fd, urd_readable_fn fn, void *arg);

/** urd_run - turn until drained; the daemon's main loop */
URD_API void urd_run(struct urd *urd);

/* ---- between the files of host/ ---- */

/** host_init - make the core and its clients in the calling thread */
int host_init(struct urd *urd, const struct urd_conf *conf, char *err, size_t err_len);
/** host_fini - free what host_init() made; drained */
void host_fini(struct urd *urd);
/** host_turn - one turn of the loop; Return: true until drained */
bool host_turn(struct urd *urd, u64 until_ns);
/** host_drain - begin to drain */
void host_drain(struct urd *urd, u64 timeout_ns);
/** host_answer - a job of this process has its answer */
void host_answer(struct urd *urd, struct urd_job *job);
/** host_chunk - a chunk for a job of this process */
void host_chunk(struct urd *urd, struct urd_chunk *chunk);
/** host_take - make a job of a request */
void host_take(struct urd *urd, struct urd_request *rq);
/** host_doorbell - other threads have left something */
void host_doorbell(struct urd *urd);
/** host_is_owner - does the calling thread turn the ring? */
static inline bool host_is_owner(const struct urd *urd)
{
	return pthread_equal(urd->owner, pthread_self());
}
/** conf_check - refuse what cannot work; Return: 0 or -EINVAL with @err filled in */
int conf_check(const struct urd_conf *conf, char *err, size_t err_len);

#endif /* URD_HOST_H */
