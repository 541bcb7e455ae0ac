// SPDX-License-Identifier: MIT
/*
 * ring.h without a kernel.  An op is armed, becomes ready when its stream does,
 * completes a drawn time later, and is handed out by a later turn; a deadline or
 * a cancel may come first, or lose.  What the kernel could do to a buffer is
 * done: a read scribbles over it at once and brings the bytes at its completion,
 * a write's bytes must be the same at its end as they were at its beginning.
 */
#include "ring/ring.h"

#include <limits.h>
#include <poll.h>

#include "ring_sim.h"

/* Bytes of a buffer that a read spoils at once, at either end. */
#define SCRIBBLE 64u

/* One world, one ring; its memory is used again by the next seed. */
struct urd_ring the_ring;

int urd_ring_new(const struct urd_ring_conf *conf, struct urd_ring **ring)
{
	urd_assert(conf->ops_max <= SIM_OPS);
	memset(&the_ring, 0, sizeof(the_ring));
	the_ring.ops_max = conf->ops_max;
	*ring = &the_ring;
	return 0;
}

void urd_ring_free(struct urd_ring *ring)
{
	for (u32 i = 0; ring && i < ring->ops_nr; i++)
		sim_check(urd_op_is_idle(ring->op[i].op), "an op is in flight at the end");
}

int urd_ring_fd(struct urd_ring *ring)
{
	(void)ring;
	return -1;
}

const struct urd_ring_stats *urd_ring_stats(const struct urd_ring *ring)
{
	return &ring->stats;
}

u64 urd_ring_now(struct urd_ring *ring)
{
	(void)ring;
	return sim.now;
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
	ring->op[ring->ops_nr].op = op;
	ring->op[ring->ops_nr++].deadline_ev = URD_NEVER;
}

u32 op_name(const struct urd_op *op)
{
	return op->kind * 100u + op->sub;
}

/* ---- what an op is armed on ---- */

u32 *op_place(const struct sim_op *s)
{
	const struct sim_fd *f;

	if (s->type == T_ACCEPT)
		return &sim.listen_op;
	if (s->type == T_POLL)
		return NULL;
	f = fd_get(s->fd);
	if (f->kind != FD_STREAM)
		return NULL;
	return s->type == T_READ ? &sim.chan[f->in].rd_op : &sim.chan[f->out].wr_op;
}

/* Bytes of a write that may go now: of a short one to a pipe all or none. */
u32 write_room(const struct sim_op *s)
{
	u32 room = chan_room(fd_get(s->fd)->out), left = s->op->bytes - s->sent;

	if (!s->op->is_sock && s->op->bytes <= PIPE_BUF && room < left)
		return 0;
	return urd_min(room, left);
}

bool op_is_ready(const struct sim_op *s)
{
	const struct sim_fd *f = fd_get(s->fd);

	switch ((enum sim_op_type)s->type) {
	case T_READ:
		return f->kind == FD_SPAWNER ? spawn_has() : chan_is_readable(f->in);
	case T_WRITE:
		return !sim.chan[f->out].readers || write_room(s) > 0;
	case T_POLL:
		return f->kind == FD_PIDFD && sim.worker[f->worker].dead;
	case T_ACCEPT:
		return false;
	}
	return false;
}

u32 iov_sum(const struct urd_op *op)
{
	u32 sum = op->bytes;

	for (u32 i = 0; i < op->iov_nr; i++) {
		const u8 *p = op->iov[i].iov_base;
		size_t n = op->iov[i].iov_len;
		size_t step = n > 256 ? n / 64 : 1;

		for (size_t k = 0; k < n; k += step)
			sum = (sum ^ p[k]) * 0x01000193u;
	}
	return sum;
}

/* An op may be ready: its completion is on the way, if it was not already. */
void op_look(u32 idx)
{
	struct sim_op *s = &the_ring.op[idx];

	if (!s->armed || s->sched || !op_is_ready(s))
		return;
	s->sched = true;
	ev_push(sim.now + sim_delay(), EV_OP, idx, s->seq);
}

void ring_poke(u32 op_plus_1)
{
	if (op_plus_1)
		op_look(op_plus_1 - 1);
}

void ring_exited(u16 worker)
{
	for (u32 i = 0; i < the_ring.ops_nr; i++) {
		struct sim_op *s = &the_ring.op[i];

		if (s->armed && s->type == T_POLL && fd_get(s->fd)->worker == worker)
			op_look(i);
	}
}

void ring_spawned(void)
{
	for (u32 i = 0; i < the_ring.ops_nr; i++)
		if (the_ring.op[i].armed && the_ring.op[i].op->kind == URD_OP_SPAWNER)
			op_look(i);
}

void op_arm(struct urd_ring *ring, struct urd_op *op, enum sim_op_type type, int fd, u64 deadline)
{
	struct sim_op *s = &ring->op[op->index];
	u32 *place;

	s->type = (u8)type;
	s->armed = true;
	s->sched = false;
	s->fd = fd;
	s->seq = op->seq;
	s->deadline = deadline;
	op->fd = fd;
	op->timed = deadline != URD_NEVER;
	place = op_place(s);
	if (place) {
		sim_check(!*place, "two ops of a kind on one descriptor");
		*place = op->index + 1;
	}
	if (deadline < s->deadline_ev) {
		s->deadline_ev = urd_max(deadline, sim.now);
		ev_push(s->deadline_ev, EV_DEADLINE, op->index, 0);
	}
	ring->stats.sqes++;
	sim_note(NOTE_ARM, op->index, op_name(op), (u32)(fd - SIM_FD_BASE));
	op_look(op->index);
}

static void op_begin(struct urd_ring *ring, struct urd_op *op, enum urd_op_state state)
{
	sim_check(op->index < ring->ops_nr && ring->op[op->index].op == op, "an op is not known");
	sim_check(urd_op_is_idle(op), "an op is armed twice");
	op->state = (u8)state;
	op->cancelling = false;
	op->timed = false;
	op->seq++;
}

/* The kernel is done with an op: its result is fixed, whoever asks for what from now on. */
void op_post(u32 idx, s32 res, bool more)
{
	struct sim_op *s = &the_ring.op[idx];
	u32 *place = op_place(s);

	urd_assert(s->armed && the_ring.cq_nr < ARRAY_SIZE(the_ring.cq));
	if (!more) {
		s->armed = false;
		s->sched = false;
		if (place)
			*place = 0;
		if (s->type == T_READ)
			buf_unpoison(s->buf, s->len);
		if (s->type == T_WRITE)
			sim_check(s->sum == iov_sum(s->op), "bytes changed while being written");
	}
	the_ring.cq[(the_ring.cq_head + the_ring.cq_nr++) % ARRAY_SIZE(the_ring.cq)] =
		(struct sim_cqe){ idx, res, more };
}

/* ---- the calls ---- */

void urd_op_read(struct urd_ring *ring, struct urd_op *op, int fd, void *buf, u32 len,
		 u64 deadline_ns)
{
	struct sim_op *s = &ring->op[op->index];

	urd_assert(len > 0);
	op_begin(ring, op, URD_OP_ARMED);
	s->buf = buf;
	s->len = len;
	memset(s->buf, 0xa5, urd_min(len, SCRIBBLE));
	memset(s->buf + len - urd_min(len, SCRIBBLE), 0x5a, urd_min(len, SCRIBBLE));
	buf_poison(s->buf, len);
	op_arm(ring, op, T_READ, fd, deadline_ns);
}

void urd_op_write(struct urd_ring *ring, struct urd_op *op, int fd, bool is_sock, struct iovec *iov,
		  u32 nr, bool wait, u64 deadline_ns)
{
	struct sim_op *s = &ring->op[op->index];

	urd_assert(nr >= 1 && nr <= URD_OP_IOV_MAX);
	op_begin(ring, op, wait ? URD_OP_ARMED : URD_OP_INLINE);
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
	urd_assert(op->bytes > 0);
	s->sent = 0;
	s->sum = iov_sum(op);
	if (wait) {
		op_arm(ring, op, T_WRITE, fd, deadline_ns);
		return;
	}
	s->fd = fd;
	s->type = T_WRITE;
	s->deadline = deadline_ns;
	/* nobody may close it meanwhile */
	sim_check(!*op_place(s), "two writes on one descriptor");
	*op_place(s) = op->index + 1;
	ring->inline_new[ring->inline_new_nr++] = op->index;
}

void urd_op_confirm(struct urd_ring *ring, struct urd_op *op)
{
	u32 i = 0;

	urd_assert(op->state == URD_OP_INLINE && op->bytes <= PIPE_BUF);
	while (i < ring->inline_done_nr && ring->inline_done[i] != op->index)
		i++;
	sim_check(i < ring->inline_done_nr, "a write is believed to have gone out that has not");
	memmove(&ring->inline_done[i], &ring->inline_done[i + 1],
		(--ring->inline_done_nr - i) * sizeof(ring->inline_done[0]));
	*op_place(&ring->op[op->index]) = 0;
	op->state = URD_OP_IDLE;
}

void urd_op_poll(struct urd_ring *ring, struct urd_op *op, int fd, u32 events, u64 deadline_ns)
{
	urd_assert(events == POLLIN);
	op_begin(ring, op, URD_OP_ARMED);
	op_arm(ring, op, T_POLL, fd, deadline_ns);
}

void urd_op_accept(struct urd_ring *ring, struct urd_op *op, int fd)
{
	op_begin(ring, op, URD_OP_ARMED);
	op_arm(ring, op, T_ACCEPT, fd, URD_NEVER);
	for (u32 i = 0; i < sim.backlog_nr; i++)
		ev_push(sim.now + sim_delay(), EV_ACCEPT, sim.backlog[i], 0);
	sim.backlog_nr = 0;
}

void urd_op_cancel(struct urd_ring *ring, struct urd_op *op)
{
	if (urd_op_is_idle(op) || op->cancelling)
		return;
	op->cancelling = true;
	sim_note(NOTE_CANCEL, op->index, op_name(op), op->state);
	if (op->state == URD_OP_INLINE)
		ring->hurry = true;
	else if (op->state == URD_OP_ARMED)
		ev_push(sim.now + (chance(500) ? 0 : sim_delay()), EV_CANCEL, op->index, op->seq);
}

void urd_ring_flush(struct urd_ring *ring)
{
	(void)ring;
}

bool urd_ring_is_pending(const struct urd_ring *ring)
{
	return ring->inline_new_nr || ring->inline_done_nr;
}

void urd_ring_close_fd(struct urd_ring *ring, int fd)
{
	(void)ring;
	fd_close(fd);
}

bool urd_ring_hung_up(struct urd_ring *ring, int fd)
{
	const struct sim_fd *f = fd_get(fd);

	(void)ring;
	return !sim.chan[f->in].writers && !sim.chan[f->out].readers;
}

/* How much of what could be moved is moved this time. */
u32 some(u32 n)
{
	return n > 1 && chance(sim.o.short_io) ? (u32)rnd_between(1, n) : n;
}

s32 urd_ring_read_now(struct urd_ring *ring, int fd, void *buf, u32 len)
{
	const struct sim_fd *f = fd_get(fd);
	struct sim_chan *ch = &sim.chan[f->in];

	(void)ring;
	sim_check(!ch->rd_op, "read at once although a read is armed");
	if (ch->len)
		return (s32)chan_get(f->in, buf, some(urd_min(len, ch->len)));
	return ch->writers ? -EAGAIN : 0;
}
