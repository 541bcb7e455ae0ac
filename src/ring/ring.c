// SPDX-License-Identifier: MIT
/*
 * The io_uring backend of ring.h: the only file of the daemon that fills SQEs
 * and reads CQEs.  tests/sim has another backend with the same calls.
 */
#include "ring/ring.h"

#include <limits.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* The completion of a linked timeout; its owner gets the guarded op's instead. */
#define KIND_TIMEOUT 0x7e
/* The completion of a cancel; the cancelled op completes by itself. */
#define KIND_CANCEL 0x7f

/* Submission entries: one batch of a busy turn.  More is submitted in between. */
#define SQ_ENTRIES 256u
/* The kernel's limit of completion entries. */
#define CQ_ENTRIES_MAX 65536u
#define CQ_ENTRIES_MIN 1024u

struct urd_ring {
	struct io_uring uring;
	struct urd_op **ops;
	u32 ops_nr;
	u32 ops_max;
	u32 queued;	  /* SQEs ever prepared, wraps */
	u32 taken;	  /* SQEs that the kernel took, wraps */
	bool pipe_nowait; /* RWF_NOWAIT works on pipes (6.4) */
	bool hurry;	  /* somebody waits for a write that has gone out already */
	int event_fd;	  /* counts completions for whoever polls; -1 until asked for */
	struct urd_list inlined;
	struct urd_ring_stats stats;
};

static u64 op_user_data(u8 kind, const struct urd_op *op)
{
	return (u64)kind << 56 | (u64)op->index << 32 | op->seq;
}

int urd_ring_new(const struct urd_ring_conf *conf, struct urd_ring **ring)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
			 IORING_SETUP_CLAMP,
	};
	struct urd_ring *r;
	u32 cq = CQ_ENTRIES_MIN;
	int ret;

	urd_assert(conf->ops_max > 0 && conf->ops_max < 1u << 24);
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->ops = calloc(conf->ops_max, sizeof(struct urd_op *));
	if (!r->ops) {
		ret = -ENOMEM;
		goto out_free;
	}
	r->ops_max = conf->ops_max;
	r->pipe_nowait = true;
	r->event_fd = -1;
	urd_list_init(&r->inlined);

	/* Each op has one completion in flight, a cancel and a timeout may add two. */
	while (cq < 2 * conf->ops_max && cq < CQ_ENTRIES_MAX)
		cq *= 2;
	for (;;) {
		p.cq_entries = cq;
		ret = io_uring_queue_init_params(SQ_ENTRIES, &r->uring, &p);
		if (ret != -ENOMEM || cq <= CQ_ENTRIES_MIN)
			break;
		cq /= 2; /* a tight RLIMIT_MEMLOCK; overflow is counted, not lost */
	}
	if (ret)
		goto out_free_ops;
	io_uring_ring_dontfork(&r->uring);
	(void)io_uring_register_ring_fd(&r->uring);
	*ring = r;
	return 0;

out_free_ops:
	free(r->ops);
out_free:
	free(r);
	return ret;
}

void urd_ring_free(struct urd_ring *ring)
{
	if (!ring)
		return;
	for (u32 i = 0; i < ring->ops_nr; i++)
		urd_assert(urd_op_is_idle(ring->ops[i]));
	io_uring_queue_exit(&ring->uring);
	if (ring->event_fd >= 0)
		close(ring->event_fd);
	free(ring->ops);
	free(ring);
}

/*
 * The ring's own descriptor will not do: with deferred task work nothing wakes a
 * poll that already sleeps on it.  An eventfd costs something with each
 * completion, so there is none until somebody asks.
 */
int urd_ring_fd(struct urd_ring *ring)
{
	int fd;

	if (ring->event_fd >= 0)
		return ring->event_fd;
	fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* what came before counts */
	if (fd < 0)
		return ring->uring.ring_fd;
	if (io_uring_register_eventfd(&ring->uring, fd)) {
		close(fd);
		return ring->uring.ring_fd;
	}
	ring->event_fd = fd;
	return fd;
}

const struct urd_ring_stats *urd_ring_stats(const struct urd_ring *ring)
{
	return &ring->stats;
}

u64 urd_ring_now(struct urd_ring *ring)
{
	struct timespec ts;

	(void)ring;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * NSEC_PER_SEC + (u64)ts.tv_nsec;
}

void urd_op_init(struct urd_ring *ring, struct urd_op *op, enum urd_op_kind kind, u8 sub)
{
	urd_assert(ring->ops_nr < ring->ops_max);
	memset(op, 0, sizeof(*op));
	op->kind = (u8)kind;
	op->sub = sub;
	op->index = ring->ops_nr;
	op->fd = -1;
	urd_list_init(&op->node);
	ring->ops[ring->ops_nr++] = op;
}

static void ring_submit(struct urd_ring *ring)
{
	int ret = io_uring_submit(&ring->uring);

	ring->stats.submits++;
	if (ret > 0)
		ring->taken += (u32)ret;
	/* EAGAIN, EBUSY: the kernel is short of memory or of room; the next turn tries again */
	urd_assert(ret >= 0 || ret == -EAGAIN || ret == -EBUSY || ret == -EINTR);
}

/* Make room for @n entries, so that a chain is never split over two submits. */
static void ring_reserve(struct urd_ring *ring, u32 n)
{
	while (io_uring_sq_space_left(&ring->uring) < n)
		ring_submit(ring);
}

static struct io_uring_sqe *ring_sqe(struct urd_ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	urd_assert(sqe != NULL);
	ring->queued++;
	ring->stats.sqes++;
	return sqe;
}

static void op_begin(struct urd_op *op, enum urd_op_state state)
{
	urd_assert(urd_op_is_idle(op));
	op->state = (u8)state;
	op->cancelling = false;
	op->timed = false;
	op->seq++;
}

/* Link a timeout behind the entry just filled. The caller has reserved both. */
static void op_guard(struct urd_ring *ring, struct urd_op *op, struct io_uring_sqe *sqe,
		     u64 deadline_ns)
{
	struct io_uring_sqe *lt;

	if (deadline_ns == URD_NEVER)
		return;
	op->timed = true;
	op->deadline.sec = (s64)(deadline_ns / NSEC_PER_SEC);
	op->deadline.nsec = (s64)(deadline_ns % NSEC_PER_SEC);
	sqe->flags |= IOSQE_IO_LINK;
	lt = ring_sqe(ring);
	io_uring_prep_link_timeout(lt, (struct __kernel_timespec *)(void *)&op->deadline,
				   IORING_TIMEOUT_ABS);
	lt->flags |= IOSQE_CQE_SKIP_SUCCESS;
	lt->user_data = op_user_data(KIND_TIMEOUT, op);
}

void urd_op_read(struct urd_ring *ring, struct urd_op *op, int fd, void *buf, u32 len,
		 u64 deadline_ns)
{
	struct io_uring_sqe *sqe;

	urd_assert(len > 0);
	ring_reserve(ring, 2);
	op_begin(op, URD_OP_ARMED);
	sqe = ring_sqe(ring);
	io_uring_prep_read(sqe, fd, buf, len, (u64)-1);
	sqe->user_data = op_user_data(op->kind, op);
	op_guard(ring, op, sqe, deadline_ns);
}

static void op_prep_write(struct urd_ring *ring, struct urd_op *op, bool nowait, u64 deadline_ns)
{
	struct io_uring_sqe *sqe;
	int flags = MSG_NOSIGNAL | MSG_WAITALL | (nowait ? MSG_DONTWAIT : 0);

	ring_reserve(ring, 2);
	sqe = ring_sqe(ring);
	if (op->is_sock && op->iov_nr == 1) {
		io_uring_prep_send(sqe, op->fd, op->iov[0].iov_base, op->iov[0].iov_len, flags);
	} else if (op->is_sock) {
		op->msg = (struct msghdr){ .msg_iov = op->iov, .msg_iovlen = op->iov_nr };
		io_uring_prep_sendmsg(sqe, op->fd, &op->msg, (unsigned int)flags);
	} else if (op->iov_nr == 1) {
		io_uring_prep_write(sqe, op->fd, op->iov[0].iov_base, (u32)op->iov[0].iov_len,
				    (u64)-1);
		sqe->rw_flags = nowait ? RWF_NOWAIT : 0;
	} else {
		io_uring_prep_writev(sqe, op->fd, op->iov, op->iov_nr, (u64)-1);
		sqe->rw_flags = nowait ? RWF_NOWAIT : 0;
	}
	sqe->user_data = op_user_data(op->kind, op);
	if (nowait) {
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		op->ticket = ring->queued;
		urd_list_push(&ring->inlined, &op->node);
	} else {
		op_guard(ring, op, sqe, deadline_ns);
	}
}

void urd_op_write(struct urd_ring *ring, struct urd_op *op, int fd, bool is_sock, struct iovec *iov,
		  u32 nr, bool wait, u64 deadline_ns)
{
	bool nowait = !wait && (is_sock || ring->pipe_nowait);

	urd_assert(nr >= 1 && nr <= URD_OP_IOV_MAX);
	op_begin(op, nowait ? URD_OP_INLINE : URD_OP_ARMED);
	op->fd = fd;
	op->is_sock = is_sock;
	if (nr == 1) {
		op->iov1 = iov[0];
		iov = &op->iov1;
	}
	op->iov = iov;
	op->iov_nr = nr;
	op->bytes = 0;
	for (u32 i = 0; i < nr; i++)
		op->bytes += (u32)iov[i].iov_len;
	/* kept for the second try, if there must be one */
	op->deadline.sec = deadline_ns == URD_NEVER ? -1 : (s64)(deadline_ns / NSEC_PER_SEC);
	op->deadline.nsec = (s64)(deadline_ns % NSEC_PER_SEC);
	op_prep_write(ring, op, nowait, deadline_ns);
}

/* A write that could not go out at once waits for room now. */
static void op_rewrite(struct urd_ring *ring, struct urd_op *op)
{
	u64 deadline = op->deadline.sec < 0 ?
			       URD_NEVER :
			       (u64)op->deadline.sec * NSEC_PER_SEC + (u64)op->deadline.nsec;

	ring->stats.retried++;
	op->state = URD_OP_ARMED;
	op->seq++;
	op_prep_write(ring, op, false, deadline);
	if (op->cancelling) {
		op->cancelling = false;
		urd_op_cancel(ring, op);
	}
}

void urd_op_poll(struct urd_ring *ring, struct urd_op *op, int fd, u32 events, u64 deadline_ns)
{
	struct io_uring_sqe *sqe;

	ring_reserve(ring, 2);
	op_begin(op, URD_OP_ARMED);
	sqe = ring_sqe(ring);
	io_uring_prep_poll_add(sqe, fd, events);
	sqe->user_data = op_user_data(op->kind, op);
	op_guard(ring, op, sqe, deadline_ns);
}

void urd_op_accept(struct urd_ring *ring, struct urd_op *op, int fd)
{
	struct io_uring_sqe *sqe;

	ring_reserve(ring, 1);
	op_begin(op, URD_OP_ARMED);
	sqe = ring_sqe(ring);
	io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	sqe->user_data = op_user_data(op->kind, op);
}

void urd_op_cancel(struct urd_ring *ring, struct urd_op *op)
{
	struct io_uring_sqe *sqe;

	if (urd_op_is_idle(op) || op->cancelling)
		return;
	op->cancelling = true;
	if (op->state == URD_OP_INLINE) {
		ring->hurry = true; /* it ends with the next turn, or op_rewrite() comes back */
		return;
	}
	if (op->state == URD_OP_DONE)
		return;
	ring_reserve(ring, 1);
	sqe = ring_sqe(ring);
	io_uring_prep_cancel64(sqe, op_user_data(op->kind, op), 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = op_user_data(KIND_CANCEL, op);
}

/* Turn one CQE into a completion; false if it is nobody's business. */
static bool ring_complete(struct urd_ring *ring, u64 ud, s32 res, u32 flags, struct urd_done *done)
{
	u8 kind = (u8)(ud >> 56);
	u32 index = (u32)(ud >> 32) & 0xffffff;
	struct urd_op *op;

	if (kind == KIND_TIMEOUT) {
		urd_assert(res != -EINVAL); /* a split chain would leave a read unguarded */
		return false;
	}
	if (kind == KIND_CANCEL)
		return false;
	urd_assert(index < ring->ops_nr);
	op = ring->ops[index];
	urd_assert(op->kind == kind);
	if (op->confirmed == (u32)ud && (op->seq != (u32)ud || urd_op_is_idle(op)))
		return false; /* the owner knew better, or was lied to by its worker */
	urd_assert(op->seq == (u32)ud);
	urd_assert(op->state == URD_OP_ARMED || op->state == URD_OP_INLINE);

	if (op->state == URD_OP_INLINE) {
		urd_list_del(&op->node);
		if (res == -EOPNOTSUPP && !op->is_sock)
			ring->pipe_nowait = false;
		if (res == -EAGAIN || res == -EOPNOTSUPP) {
			op_rewrite(ring, op);
			return false;
		}
	}
	done->op = op;
	done->res = res;
	done->more = flags & IORING_CQE_F_MORE;
	if (!done->more)
		op->state = URD_OP_DONE;
	if (res == -ECANCELED && op->timed && !op->cancelling)
		done->res = -ETIME;
	return true;
}

static u32 ring_reap(struct urd_ring *ring, struct urd_done *done, u32 max)
{
	struct io_uring_cq *cq = &ring->uring.cq;
	u32 n = 0;

	/* not io_uring_peek_cqe(): it enters the kernel when task work is pending */
	while (n < max && io_uring_cq_ready(&ring->uring)) {
		struct io_uring_cqe *cqe = &cq->cqes[*cq->khead & *cq->kring_mask];
		u64 ud = cqe->user_data;
		s32 res = cqe->res;
		u32 flags = cqe->flags;

		io_uring_cqe_seen(&ring->uring, cqe);
		ring->stats.cqes++;
		if (ring_complete(ring, ud, res, flags, &done[n]))
			n++;
	}
	return n;
}

/* Writes that did post a completion are not among those that went out at once. */
static void ring_sort_inlined(struct urd_ring *ring)
{
	struct io_uring_cqe *cqe;
	u32 head;

	io_uring_for_each_cqe(&ring->uring, head, cqe) {
		u32 index = (u32)(cqe->user_data >> 32) & 0xffffff;
		struct urd_op *op;

		if (cqe->user_data >> 56 >= KIND_TIMEOUT)
			continue;
		urd_assert(index < ring->ops_nr);
		op = ring->ops[index];
		if (op->state == URD_OP_INLINE && op->seq == (u32)cqe->user_data)
			urd_list_del(&op->node);
	}
}

/*
 * Writes that the kernel took and said nothing about went out wholly.  They are
 * handed out before anything else of the turn, as they came before it: an
 * answer to what was written may be there already.
 *
 * Nothing is known while completions wait in the kernel's overflow list.  And of
 * a pipe nothing is known while task work is pending: a failed pipe write is
 * completed by task work, of which one enter runs only so much.
 */
static u32 ring_reap_inlined(struct urd_ring *ring, struct urd_done *done, u32 max)
{
	bool pending = IO_URING_READ_ONCE(*ring->uring.sq.kflags) & IORING_SQ_TASKRUN;
	struct urd_op *op, *next;
	u32 n = 0;

	if (urd_list_empty(&ring->inlined) || io_uring_cq_has_overflow(&ring->uring))
		return 0;
	ring_sort_inlined(ring);
	urd_list_for_each_safe(op, next, &ring->inlined, node) {
		if (n == max || (s32)(ring->taken - op->ticket) < 0)
			break;
		if (pending && !op->is_sock)
			continue; /* its owner may confirm it; else ring_enter() does not wait */
		urd_list_del(&op->node);
		op->state = URD_OP_DONE;
		ring->stats.inlined++;
		done[n++] = (struct urd_done){ .op = op, .res = (s32)op->bytes };
	}
	return n;
}

void urd_op_confirm(struct urd_ring *ring, struct urd_op *op)
{
	(void)ring;
	urd_assert(op->state == URD_OP_INLINE && op->bytes <= PIPE_BUF);
	urd_list_del(&op->node);
	op->state = URD_OP_IDLE;
	op->confirmed = op->seq;
}

/* Did the kernel take a write of which its owner has not heard yet? */
static bool ring_owes_news(const struct urd_ring *ring)
{
	const struct urd_op *first = urd_list_first(&ring->inlined, struct urd_op, node);

	return !urd_list_empty(&ring->inlined) && (s32)(ring->taken - first->ticket) >= 0;
}

static void ring_enter(struct urd_ring *ring, u64 until_ns)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts, *tsp = NULL;
	u32 wait = 1;
	int ret;

	if (until_ns == 0 || ring->hurry || ring_owes_news(ring) ||
	    io_uring_cq_ready(&ring->uring)) {
		wait = 0;
		ring->hurry = false;
	} else if (until_ns != URD_NEVER) {
		u64 now = urd_ring_now(ring);

		if (now >= until_ns) {
			wait = 0;
		} else {
			ts.tv_sec = (s64)((until_ns - now) / NSEC_PER_SEC);
			ts.tv_nsec = (s64)((until_ns - now) % NSEC_PER_SEC);
			tsp = &ts;
		}
	}
	ring->stats.turns++;
	if (!wait)
		ret = io_uring_submit_and_get_events(&ring->uring);
	else if (tsp)
		ret = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, tsp, NULL);
	else
		ret = io_uring_submit_and_wait(&ring->uring, 1);
	urd_assert(ret >= 0 || ret == -ETIME || ret == -EINTR || ret == -EAGAIN || ret == -EBUSY);
	/*
	 * What was taken is what is no longer queued: the return value says -ETIME
	 * or -EINTR even when entries went in before the wait.
	 */
	ring->taken = ring->queued - io_uring_sq_ready(&ring->uring);
	if (io_uring_cq_has_overflow(&ring->uring)) {
		ring->stats.overflows++;
		(void)io_uring_get_events(&ring->uring);
	}
}

u32 urd_ring_turn(struct urd_ring *ring, u64 until_ns, struct urd_done *done, u32 max)
{
	eventfd_t count;
	u32 n;

	urd_assert(max >= 1);
	if (ring->event_fd >= 0)
		(void)eventfd_read(ring->event_fd, &count);
	ring_enter(ring, until_ns);
	n = ring_reap_inlined(ring, done, max);
	n += ring_reap(ring, done + n, max - n);
	if (ring->event_fd >= 0 && (ring->hurry || io_uring_cq_ready(&ring->uring)))
		(void)eventfd_write(ring->event_fd, 1); /* there was more than room */
	return n;
}

void urd_ring_flush(struct urd_ring *ring)
{
	if (io_uring_sq_ready(&ring->uring)) {
		ring_submit(ring);
		ring->taken = ring->queued - io_uring_sq_ready(&ring->uring);
	}
}

bool urd_ring_is_pending(const struct urd_ring *ring)
{
	return !urd_list_empty(&ring->inlined);
}

void urd_ring_close_fd(struct urd_ring *ring, int fd)
{
	(void)ring;
	close(fd);
}

bool urd_ring_hung_up(struct urd_ring *ring, int fd)
{
	struct pollfd pfd = { .fd = fd };

	(void)ring;
	return poll(&pfd, 1, 0) == 1 && pfd.revents & (POLLHUP | POLLERR);
}

s32 urd_ring_read_now(struct urd_ring *ring, int fd, void *buf, u32 len)
{
	ssize_t n;

	(void)ring;
	n = read(fd, buf, len);
	return n < 0 ? -errno : (s32)n;
}
