/* SPDX-License-Identifier: MIT */
/*
 * The thin layer over io_uring, and the seam that a simulator replaces.
 *
 * An operation is a struct urd_op that is a field of its owner.  One arm gives
 * exactly one completion (a multishot accept gives one per connection), handed
 * out by urd_ring_turn() as data, never through a callback.  user_data is
 * kind:8 | index:24 | seq:32: the index finds the op in the ring's table, seq
 * counts its arms, so that no completion and no cancel can hit a later use.
 *
 * Writes are tried without waiting first and post no completion of the kernel's
 * when all goes out at once (CQE_SKIP_SUCCESS): the ring tells the owner so
 * itself, after the submit.  What did not fit is armed anew, waiting for room.
 *
 * Reads and polls may carry a deadline, a linked timeout with an absolute
 * CLOCK_MONOTONIC time.  Its own completion is suppressed: an op that ends with
 * -ECANCELED although nobody cancelled it has met its deadline, and is handed
 * out with -ETIME.
 *
 * All of it belongs to the one thread that called urd_ring_init().
 */
#ifndef URD_RING_H
#define URD_RING_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "base/base.h"
#include "base/list.h"

/** Pieces of one gathered write. */
#define URD_OP_IOV_MAX 64

struct urd_ring;

/** What the owner of an op is; the loop's switch looks at it first. */
enum urd_op_kind {
	URD_OP_NONE,
	URD_OP_SLOT,	 /* one of a worker slot's */
	URD_OP_SPAWNER,	 /* answers of the spawner */
	URD_OP_CONN,	 /* one of a client connection's */
	URD_OP_LISTENER, /* accept */
	URD_OP_SIGNAL,	 /* signalfd */
	URD_OP_DOORBELL, /* another thread has work for us */
	URD_OP_KIND_NR,
};

enum urd_op_state {
	URD_OP_IDLE,
	URD_OP_ARMED,  /* the kernel has it */
	URD_OP_INLINE, /* a write that was tried without waiting */
	URD_OP_DONE,   /* completed; its owner has not heard of it yet */
};

/**
 * struct urd_op - one operation, a field of its owner
 * @kind: what the owner is
 * @sub: which of the owner's ops it is
 * @state: idle, or in flight
 * @cancelling: a cancel was asked for since it was armed
 * @timed: it carries a deadline
 * @index: place in the ring's table
 * @seq: how often it was armed
 * @deadline: read by the kernel at submit, so it lives here
 *
 * Everything else is the ring's.
 */
struct urd_op {
	u8 kind;
	u8 sub;
	u8 state;
	bool cancelling;
	bool timed;
	bool is_sock;
	u32 index;
	u32 seq;
	int fd;
	u32 iov_nr;
	u32 bytes;     /* of a write: all that is to go out */
	u32 ticket;    /* of a write tried inline: place in the submission order */
	u32 confirmed; /* seq of the last arm that its owner confirmed */
	struct iovec *iov;
	struct iovec iov1;
	struct msghdr msg;
	struct {
		s64 sec;
		s64 nsec;
	} deadline;
	struct urd_list node; /* in ring->inlined */
};

/**
 * struct urd_done - one completion
 * @op: whose
 * @res: bytes, 0, a new descriptor (accept) or negative errno; -ETIME: deadline
 * @more: the op stays armed (multishot accept)
 */
struct urd_done {
	struct urd_op *op;
	s32 res;
	bool more;
};

/**
 * struct urd_ring_conf - sizes of a ring
 * @ops_max: operations that may be registered, 1 to 2^24 - 1
 */
struct urd_ring_conf {
	u32 ops_max;
};

/** struct urd_ring_stats - counters since start */
struct urd_ring_stats {
	u64 turns;   /* io_uring_enter calls with a wait */
	u64 submits; /* other io_uring_enter calls */
	u64 sqes;
	u64 cqes;
	u64 inlined;   /* writes that went out at once */
	u64 retried;   /* writes that did not */
	u64 overflows; /* the completion queue overflowed: a sizing bug */
};

/**
 * urd_ring_new - create the calling thread's ring
 * @conf: sizes
 * @ring: set to the ring
 *
 * Context: the thread that will own it.
 * Return: 0; -ENOSYS, -EPERM, -ENOMEM, -EMFILE, -EINVAL as io_uring_setup(2)
 * (urd_probe_explain() turns them into advice).
 */
int urd_ring_new(const struct urd_ring_conf *conf, struct urd_ring **ring) URD_MUST_CHECK;

/** urd_ring_free - tear the ring down; every op must be idle. NULL is fine. */
void urd_ring_free(struct urd_ring *ring);

/** urd_ring_fd - becomes readable when there is something to reap */
int urd_ring_fd(struct urd_ring *ring);

/** urd_ring_stats - counters */
const struct urd_ring_stats *urd_ring_stats(const struct urd_ring *ring);

/** urd_ring_now - CLOCK_MONOTONIC in ns (virtual time in the simulator) */
u64 urd_ring_now(struct urd_ring *ring);

/** urd_op_init - register an op; asserts that there is room for it */
void urd_op_init(struct urd_ring *ring, struct urd_op *op, enum urd_op_kind kind, u8 sub);

/** urd_op_is_idle - may it be armed, and its memory be reused? */
static inline bool urd_op_is_idle(const struct urd_op *op)
{
	return op->state == URD_OP_IDLE;
}

/** urd_res_is_again - did an operation end for no reason of its own? Arm it again. */
static inline bool urd_res_is_again(s32 res)
{
	return res == -EAGAIN || res == -EINTR;
}

/**
 * urd_done_begin - its owner is about to hear of a completion
 *
 * Only now may the op be armed again, and its buffer be touched: completions of
 * one turn are handed out one after the other, and what the owner does about one
 * must not disturb another that still waits to be looked at.
 */
static inline void urd_done_begin(const struct urd_done *done)
{
	if (!done->more)
		done->op->state = URD_OP_IDLE;
}

/**
 * urd_op_read - arm a read; completes with bytes, 0 at the end of file
 * @ring: the ring
 * @op: an idle op
 * @fd: pipe, socket, signalfd, eventfd
 * @buf: where to; the kernel's until the completion
 * @len: at most so many bytes
 * @deadline_ns: URD_NEVER, or when to give up (-ETIME)
 */
void urd_op_read(struct urd_ring *ring, struct urd_op *op, int fd, void *buf, u32 len,
		 u64 deadline_ns);

/**
 * urd_op_write - arm a write of one or more pieces
 * @ring: the ring
 * @op: an idle op
 * @fd: a pipe's write end with O_NONBLOCK set, or a stream socket
 * @is_sock: @fd is a socket
 * @iov: pieces; the array and the bytes are the kernel's until the completion
 * @nr: 1 to URD_OP_IOV_MAX
 * @wait: there is no room now, so do not even try without waiting
 * @deadline_ns: URD_NEVER, or when to give up waiting for room (-ETIME)
 *
 * Completes with the bytes written, which may be fewer than asked for, or
 * -EPIPE, -ECONNRESET, -ETIME, -ECANCELED.
 */
void urd_op_write(struct urd_ring *ring, struct urd_op *op, int fd, bool is_sock, struct iovec *iov,
		  u32 nr, bool wait, u64 deadline_ns);

/**
 * urd_op_confirm - an inline write to a pipe has evidently gone out
 * @op: in state URD_OP_INLINE, of at most PIPE_BUF bytes, which go out at once or not
 *
 * For an owner who has the answer to what it wrote before the ring could tell.
 * The op is idle afterwards and does not complete.
 */
void urd_op_confirm(struct urd_ring *ring, struct urd_op *op);

/**
 * urd_op_poll - arm a one-shot poll; completes with the events seen
 * @events: POLLIN and so on
 */
void urd_op_poll(struct urd_ring *ring, struct urd_op *op, int fd, u32 events, u64 deadline_ns);

/** urd_op_accept - arm a multishot accept; completes with descriptors, CLOEXEC and non-blocking */
void urd_op_accept(struct urd_ring *ring, struct urd_op *op, int fd);

/**
 * urd_op_cancel - ask an op in flight to end; it still completes once
 *
 * A request, not a fact: it may complete with -ECANCELED or with what it was
 * about to do.  Nothing happens if it is idle.
 */
void urd_op_cancel(struct urd_ring *ring, struct urd_op *op);

/**
 * urd_ring_turn - submit, wait, reap
 * @ring: the ring
 * @until_ns: return then at the latest; 0 does not wait, URD_NEVER has no limit
 * @done: filled with completions
 * @max: room there, at least 1
 *
 * Each completion must be given to urd_done_begin() and then to its owner.
 *
 * Return: number of completions; 0 when the time came or a signal did.
 */
u32 urd_ring_turn(struct urd_ring *ring, u64 until_ns, struct urd_done *done, u32 max);

/**
 * urd_ring_flush - submit what is queued without waiting
 *
 * For work that others should begin with while we still compute.
 */
void urd_ring_flush(struct urd_ring *ring);

/** urd_ring_is_pending - are there writes that only the next turn will report? */
bool urd_ring_is_pending(const struct urd_ring *ring);

/** urd_ring_close_fd - close a descriptor that no op is in flight on */
void urd_ring_close_fd(struct urd_ring *ring, int fd);

/** urd_ring_hung_up - has the peer of a stream closed both directions? */
bool urd_ring_hung_up(struct urd_ring *ring, int fd);

/**
 * urd_ring_read_now - read without waiting and without an op
 *
 * For the last bytes of a process that has ended.
 * Return: bytes, 0 at the end of file, -EAGAIN, negative errno.
 */
s32 urd_ring_read_now(struct urd_ring *ring, int fd, void *buf, u32 len);

#endif /* URD_RING_H */
