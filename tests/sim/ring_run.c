// SPDX-License-Identifier: MIT
/*
 * What becomes of the ops of the simulated ring: events complete them, a turn
 * waits for that and hands out what there is.
 */
#include <limits.h>
#include <poll.h>

#include "ring_sim.h"

/* ---- what becomes of an op ---- */

static void op_do_read(u32 idx)
{
	struct sim_op *s = &the_ring.op[idx];
	const struct sim_fd *f = fd_get(s->fd);
	struct sim_chan *ch;
	u32 n;

	buf_unpoison(s->buf, s->len);
	if (f->kind == FD_SPAWNER) {
		n = spawn_take((struct urd_spawned *)(void *)s->buf,
			       s->len / (u32)sizeof(struct urd_spawned));
		op_post(idx, (s32)(n * sizeof(struct urd_spawned)), false);
		return;
	}
	ch = &sim.chan[f->in];
	if (ch->reset)
		op_post(idx, -ECONNRESET, false);
	else if (!ch->len)
		op_post(idx, 0, false);
	else
		op_post(idx, (s32)chan_get(f->in, s->buf, some(urd_min(s->len, ch->len))), false);
}

/* Move up to @max of the bytes that have not gone yet. */
static u32 op_push_bytes(struct sim_op *s, u32 max)
{
	u16 out = fd_get(s->fd)->out;
	u32 off = s->sent, moved = 0;

	for (u32 i = 0; i < s->op->iov_nr && max; i++) {
		u32 len = (u32)s->op->iov[i].iov_len, n;

		if (off >= len) {
			off -= len;
			continue;
		}
		n = chan_put(out, (u8 *)s->op->iov[i].iov_base + off, urd_min(len - off, max));
		moved += n;
		max -= n;
		if (n < len - off)
			break;
		off = 0;
	}
	s->sent += moved;
	return moved;
}

/* How much of what could be written is: a short write to a pipe is not torn. */
static u32 write_some(const struct sim_op *s)
{
	u32 n = write_room(s);

	return !s->op->is_sock && s->op->bytes <= PIPE_BUF ? n : some(n);
}

static void op_do_write(u32 idx)
{
	struct sim_op *s = &the_ring.op[idx];
	u16 out = fd_get(s->fd)->out;

	if (!sim.chan[out].readers) {
		op_post(idx, s->sent ? (s32)s->sent : -EPIPE, false);
		return;
	}
	(void)op_push_bytes(s, write_some(s));
	/* a pipe says what went, a socket waits for the rest */
	if (s->sent == s->op->bytes || !s->op->is_sock || chance(sim.o.short_io))
		op_post(idx, (s32)s->sent, false);
	else
		op_look(idx);
}

void ring_ev_op(u32 idx, u32 seq)
{
	struct sim_op *s = &the_ring.op[idx];

	if (!s->armed || s->seq != seq)
		return;
	s->sched = false;
	if (!op_is_ready(s))
		return;
	if (s->type == T_READ)
		op_do_read(idx);
	else if (s->type == T_WRITE)
		op_do_write(idx);
	else
		op_post(idx, POLLIN, false);
}

void ring_ev_deadline(u32 idx, u64 t)
{
	struct sim_op *s = &the_ring.op[idx];

	/* one event per op counts at a time: the earliest that was asked for */
	if (t != s->deadline_ev)
		return;
	s->deadline_ev = URD_NEVER;
	if (!s->armed || s->deadline == URD_NEVER)
		return;
	if (s->deadline > sim.now) {
		s->deadline_ev = s->deadline;
		ev_push(s->deadline, EV_DEADLINE, idx, 0);
		return;
	}
	op_post(idx, s->type == T_WRITE && s->sent ? (s32)s->sent : -ECANCELED, false);
}

void ring_ev_cancel(u32 idx, u32 seq)
{
	struct sim_op *s = &the_ring.op[idx];

	if (!s->armed || s->seq != seq)
		return;
	if (op_is_ready(s) && chance(500))
		ring_ev_op(idx, seq);
	else
		op_post(idx, s->type == T_WRITE && s->sent ? (s32)s->sent : -ECANCELED, false);
}

void ring_accept(u32 client)
{
	struct sim_client *c = &sim.client[client];

	if (c->state != CS_KNOCKING)
		return;
	if (!sim.listen_op) {
		sim.backlog[sim.backlog_nr++] = (u16)client;
		return;
	}
	if (sim.faulty && chance(sim.o.accept_fault)) {
		sim.backlog[sim.backlog_nr++] = (u16)client;
		op_post(sim.listen_op - 1, chance(500) ? -EMFILE : -ECONNABORTED, false);
		return;
	}
	client_accepted(client);
	op_post(sim.listen_op - 1, fd_new(FD_STREAM, c->tx, c->rx, SIM_NONE), true);
}

/* ---- the turn ---- */

/* A write that is tried without waiting: all, some, none, or nobody to read it. */
static void inline_try(u32 idx)
{
	struct sim_op *s = &the_ring.op[idx];
	struct urd_op *op = s->op;
	u16 out = fd_get(s->fd)->out;
	u32 room = write_room(s);

	*op_place(s) = 0;
	s->seq = op->seq;
	if (!sim.chan[out].readers) {
		op_arm(&the_ring, op, T_WRITE, s->fd, URD_NEVER);
		op_post(idx, -EPIPE, false);
		return;
	}
	if (room && !chance(sim.o.short_io / 4))
		(void)op_push_bytes(s, write_some(s));
	if (s->sent == op->bytes) {
		sim_check(s->sum == iov_sum(op), "bytes changed before they were written");
		the_ring.inline_done[the_ring.inline_done_nr++] = idx;
		*op_place(s) = idx + 1;
		return;
	}
	if (s->sent) {
		u32 sent = s->sent;

		op_arm(&the_ring, op, T_WRITE, s->fd, URD_NEVER);
		op_post(idx, (s32)sent, false);
		return;
	}
	the_ring.stats.retried++;
	op->state = URD_OP_ARMED;
	op->seq++;
	op_arm(&the_ring, op, T_WRITE, s->fd, s->deadline);
	if (op->cancelling) {
		op->cancelling = false;
		urd_op_cancel(&the_ring, op);
	}
}

static void turn_wait(struct urd_ring *ring, u64 until)
{
	while (!ring->cq_nr && !sim.world_due) {
		u64 t = ev_next();

		sim_check(t != URD_NEVER || until != URD_NEVER, "nothing will ever happen again");
		if (t > until) {
			sim.now = urd_max(sim.now, until);
			return;
		}
		ev_run();
	}
	if (chance(sim.o.batch)) {
		u64 horizon = sim.now + rnd(100 * NSEC_PER_USEC);

		while (ev_next() <= horizon && ring->cq_nr < SIM_OPS)
			ev_run();
		sim.now = urd_max(sim.now, horizon);
	}
}

static u32 turn_reap(struct urd_ring *ring, struct urd_done *done, u32 max)
{
	u32 n = 0;

	bool pending = chance(sim.o.batch / 8);
	u32 kept = 0;

	for (u32 i = 0; i < ring->inline_done_nr; i++) {
		struct sim_op *s = &ring->op[ring->inline_done[i]];

		/* of a pipe not all is always known at once */
		if ((pending && !s->op->is_sock) || n == max) {
			ring->inline_done[kept++] = ring->inline_done[i];
			ring->hurry = true;
			continue;
		}
		*op_place(s) = 0;
		s->op->state = URD_OP_DONE;
		ring->stats.inlined++;
		done[n++] = (struct urd_done){ .op = s->op, .res = (s32)s->op->bytes };
	}
	ring->inline_done_nr = kept;
	max = urd_min(max, chance(sim.o.batch) ? max : n + 1);
	while (n < max && ring->cq_nr) {
		struct sim_cqe *c = &ring->cq[ring->cq_head];
		struct urd_op *op = ring->op[c->idx].op;

		urd_assert(op->state == URD_OP_ARMED || op->state == URD_OP_INLINE);
		done[n] = (struct urd_done){ .op = op, .res = c->res, .more = c->more };
		if (c->res == -ECANCELED && op->timed && !op->cancelling)
			done[n].res = -ETIME;
		if (!c->more)
			op->state = URD_OP_DONE;
		sim_note(NOTE_DONE, op->index, op_name(op), (u64)(s64)done[n].res);
		n++;
		ring->cq_head = (ring->cq_head + 1) % ARRAY_SIZE(ring->cq);
		ring->cq_nr--;
		ring->stats.cqes++;
	}
	return n;
}

u32 urd_ring_turn(struct urd_ring *ring, u64 until_ns, struct urd_done *done, u32 max)
{
	ring->stats.turns++;
	sim.now += rnd_between(200, 2000);
	for (u32 i = 0; i < ring->inline_new_nr; i++)
		inline_try(ring->inline_new[i]);
	ring->inline_new_nr = 0;
	while (ev_next() <= sim.now)
		ev_run();
	if (!ring->cq_nr && !ring->hurry && until_ns > sim.now)
		turn_wait(ring, until_ns);
	ring->hurry = false;
	return turn_reap(ring, done, max);
}
