/* SPDX-License-Identifier: MIT */
/*
 * The driver of a worker slot: turns completions into events of the slot's
 * machine and carries out the actions that come back.
 *
 * What guards a slot, all linked timeouts with absolute deadlines:
 *
 *	boot		the read of the control channel
 *	exec, grace,	the read of the task stream; armed when the request is
 *	heartbeat	written, so it covers send, execute and receive
 *	stop, term	a poll of the pidfd
 *	end of stream	a poll of the pidfd: 100 ms for the exit to be seen
 *
 * Backoff, age and idleness have nothing to be linked to; they are a timer of the
 * core's.
 */
#ifndef URD_SLOT_H
#define URD_SLOT_H

#include "fsm/slot_fsm.h"
#include "pool/core.h"
#include "wire/inbox.h"

/** Array header, tag, number and the method's header before a request, bytes at most. */
#define SLOT_ENVELOPE_MAX 9u

/** The operations of a slot, urd_op.sub. */
enum urd_slot_op {
	SLOT_OP_TASK_RD,
	SLOT_OP_TASK_WR,
	SLOT_OP_CTL_RD,
	SLOT_OP_CTL_WR,
	SLOT_OP_OUT,
	SLOT_OP_ERR,
	SLOT_OP_EXIT,  /* poll of the pidfd, armed as long as the process lives */
	SLOT_OP_GUARD, /* poll of the pidfd with a deadline */
	SLOT_OP_NR,
};

/** enum urd_why - why a worker leaves, or was made to */
#define URD_WHYS(X)                               \
	X(NONE, "unasked")                        \
	X(DRAIN, "urd stops")                     \
	X(ASKED, "its own wish")                  \
	X(BOOT_TIMEOUT, "boot_timeout")           \
	X(BOOT_FAILED, "boot failed")             \
	X(EXEC_TIMEOUT, "exec_timeout")           \
	X(CANCELLED, "its request was cancelled") \
	X(PROTOCOL, "it broke the protocol")      \
	X(STREAM_END, "it closed its stream")     \
	X(HEARTBEAT, "heartbeat_timeout")         \
	X(MAX_JOBS, "max_jobs")                   \
	X(TTL, "ttl")                             \
	X(MEMORY_SOFT, "memory_soft")             \
	X(MEMORY_HARD, "memory_hard")             \
	X(IDLE, "idle_timeout")                   \
	X(SCALE, "scaled down")                   \
	X(RELOAD, "reload")                       \
	X(FORCED, "asked by the operator")
#define URD_WHY_ENUM(n, t) URD_WHY_##n,
enum urd_why { URD_WHYS(URD_WHY_ENUM) URD_WHY_NR };
#undef URD_WHY_ENUM

/**
 * struct urd_lines - lines of output on their way to the log
 * @buf: core->line_max bytes, touched only when something is printed
 * @len: bytes of an unfinished line
 * @cut: the rest of a line that was too long is being passed over
 */
struct urd_lines {
	char *buf;
	u32 len;
	bool cut;
};

/**
 * struct urd_slot - one worker, or the place for one
 * @state: written by slot_step() alone
 * @why: why it leaves; the first reason stays
 * @unwanted: RETIRE or KILL came while it was being spawned
 * @exited: the exit was seen and collected
 * @broken: a stream ended; nothing more is given to it
 * @asked: somebody but itself wanted it to leave
 * @parsing: the bytes of its task stream are being looked at
 * @can_cancel, @can_meta, @can_stream: features of its ready message
 * @concurrency: requests that it takes at once
 * @jobs: with the worker, oldest first
 * @writing: job whose bytes are going out
 * @jobs_nr, @overdue_nr: in @jobs
 * @due_ns: the slot's own deadline
 * @read_due_ns: what the armed task read carries
 * @open: in pool->open
 * @hungry: in core->starved
 * @timer: backoff; while it serves, age and idleness
 * @served: answers of this worker
 * @given: requests that it was given
 * @given_soft: number of them from which on it is to be replaced, 0 for never
 * @leave: why it is to be replaced when it can be done without; URD_WHY_NONE if not
 * @beat_ns: when it last gave a sign of life
 * @idle_ns: when it last became idle
 * @ttl_due_ns: when it is too old
 * @rss_ready: resident bytes when it became ready; 0 if not looked at
 * @tail, @tail_len: the last of what it wrote to stderr
 * @exit_text: how it ended, for logs and callers
 */
struct urd_slot {
	struct urd_core *core;
	struct urd_pool *pool;
	u32 index;
	u32 worker;
	u8 state;
	u8 why;
	bool unwanted;
	bool exited;
	bool broken;
	bool asked;
	bool parsing;
	bool can_cancel;
	bool can_meta;
	bool can_stream;
	u32 concurrency;
	u32 jobs_nr;
	u32 overdue_nr;
	struct urd_list jobs;
	struct urd_job *writing;
	u64 due_ns;
	u64 read_due_ns;
	u64 born_ns;
	struct urd_list open;
	struct urd_list hungry;
	struct urd_timer timer;
	u64 served;
	u32 given;
	u32 given_soft;
	u8 leave;
	u64 beat_ns;
	u64 idle_ns;
	u64 ttl_due_ns;
	u64 rss_ready;
	char *tail;
	u32 tail_len;
	struct urd_child child;
	struct urd_op ops[SLOT_OP_NR];
	struct urd_inbox task;
	struct urd_inbox ctl;
	struct urd_lines out;
	struct urd_lines err;
	struct iovec iov[2];
	struct iovec iov_ctl;
	u8 ctl_buf[512];
	char exit_text[96];
};

/** The last bytes of a worker's stderr, kept to tell callers why it died. */
#define URD_SLOT_TAIL 1024u

/** urd_slot_text - bytes of text buffers that a slot needs */
static inline size_t urd_slot_text(const struct urd_core *core)
{
	return (2 * (size_t)core->line_max + URD_SLOT_TAIL + 4095) & ~(size_t)4095;
}

/** urd_slot_init - a vacant slot; registers its operations */
void urd_slot_init(struct urd_slot *slot, struct urd_pool *pool, u32 index, u32 worker,
		   char *lines);

/** urd_slot_start - spawn a worker into a vacant slot */
void urd_slot_start(struct urd_slot *slot);

/** urd_slot_room - how many more jobs it can be given now */
u32 urd_slot_room(const struct urd_slot *slot);

/** urd_slot_dispatch - give it a job; there is room */
void urd_slot_dispatch(struct urd_slot *slot, struct urd_job *job);

/** urd_slot_retire - let it finish what it has and leave */
void urd_slot_retire(struct urd_slot *slot, enum urd_why why);

/** urd_slot_kill - make it leave now */
void urd_slot_kill(struct urd_slot *slot, enum urd_why why);

/**
 * urd_slot_cancel - nobody wants the answer to a job that it has
 * @gone: what to do about it
 */
void urd_slot_cancel(struct urd_slot *slot, struct urd_job *job, enum urd_gone gone);

/** urd_slot_tell - send what its jobs have for the control channel, if it is free */
void urd_slot_tell(struct urd_slot *slot);

/** urd_slot_spawned - the spawner's answer */
void urd_slot_spawned(struct urd_slot *slot, const struct urd_spawned *res);

/** urd_slot_complete - one of its operations completed */
void urd_slot_complete(struct urd_slot *slot, const struct urd_done *done);

/** urd_slot_timer - its timer is due */
void urd_slot_timer(struct urd_slot *slot);

/** urd_slot_feed - memory may be there again for a starved slot */
void urd_slot_feed(struct urd_slot *slot);

/** urd_why_text - for people */
const char *urd_why_text(enum urd_why why);

#endif /* URD_SLOT_H */
