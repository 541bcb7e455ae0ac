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
#include <stdlib.h>

#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define buf_poison(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define buf_unpoison(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define buf_poison(p, n) ((void)0)
#define buf_unpoison(p, n) ((void)0)
#endif

/* Bytes of a buffer that a read spoils at once, at either end. */
#define SCRIBBLE 64u

enum sim_op_type { T_READ, T_WRITE, T_POLL, T_ACCEPT };

/* struct sim_op - the kernel's side of an op */
struct sim_op {
	struct urd_op *op;
	u8 type;
	bool armed;   /* the kernel has it */
	bool sched;   /* it is ready, and its completion on the way */
	int fd;
	u32 seq;
	u8 *buf;
	u32 len;
	u32 sent;     /* of a write: bytes that went */
	u32 sum;
	u64 deadline;
	u64 deadline_ev; /* when its pending event is due; URD_NEVER if none is */
};

struct sim_cqe {
	u32 idx;
	s32 res;
	bool more;
};

struct urd_ring {
	struct sim_op op[SIM_OPS];
	u32 ops_nr;
	u32 ops_max;
	bool hurry;
	u32 inline_new[SIM_OPS]; /* tried by the next turn */
	u32 inline_new_nr;
	u32 inline_done[SIM_OPS]; /* went out, not yet told */
	u32 inline_done_nr;
	struct sim_cqe cq[4 * SIM_OPS];
	u32 cq_head;
	u32 cq_nr;
	struct urd_ring_stats stats;
};

/* One world, one ring; its memory is used again by the next seed. */
static struct urd_ring the_ring;

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

static u32 op_name(const struct urd_op *op)
{
	return op->kind * 100u + op->sub;
}

/* ---- what an op is armed on ---- */

static u32 *op_place(const struct sim_op *s)
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
static u32 write_room(const struct sim_op *s)
{
	u32 room = chan_room(fd_get(s->fd)->out), left = s->op->bytes - s->sent;

	if (!s->op->is_sock && s->op->bytes <= PIPE_BUF && room < left)
		return 0;
	return urd_min(room, left);
}

static bool op_is_ready(const struct sim_op *s)
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

static u32 iov_sum(const struct urd_op *op)
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
static void op_look(u32 idx)
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

static void op_arm(struct urd_ring *ring, struct urd_op *op, enum sim_op_type type, int fd,
		   u64 deadline)
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
static void op_post(u32 idx, s32 res, bool more)
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

void urd_op_write(struct urd_ring *ring, struct urd_op *op, int fd, bool is_sock,
		  struct iovec *iov, u32 nr, bool wait, u64 deadline_ns)
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
static u32 some(u32 n)
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

	bool pending = chance(sim.o.short_io / 4);
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
