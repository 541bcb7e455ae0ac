// SPDX-License-Identifier: MIT
/*
 * Streams of bytes and the descriptors that urd has of them.  A descriptor's
 * number is never used twice in a run, so that whoever uses a closed one is
 * found out, and not by chance.
 */
#include "sim.h"

static u8 chan_bytes[SIM_CHANS][SIM_CHAN_BYTES];

/* ---- streams ---- */

static struct sim_chan *chan_at(u16 c)
{
	urd_assert(c < SIM_CHANS && sim.chan[c].used);
	return &sim.chan[c];
}

u16 chan_new(u32 cap)
{
	struct sim_chan *ch;
	u16 c;

	urd_assert(sim.chan_free_nr > 0 && cap <= SIM_CHAN_BYTES);
	c = sim.chan_free[--sim.chan_free_nr];
	ch = &sim.chan[c];
	*ch = (struct sim_chan){ .cap = cap, .readers = 1, .writers = 1, .used = true };
	return c;
}

static void chan_try_free(u16 c)
{
	struct sim_chan *ch = chan_at(c);

	if (ch->readers || ch->writers)
		return;
	urd_assert(!ch->rd_op && !ch->wr_op);
	ch->used = false;
	sim.chan_free[sim.chan_free_nr++] = c;
}

void sim_wake(struct sim_who who, u64 t)
{
	if (who.kind == EV_WORKER)
		worker_wake(who.idx, t);
	else if (who.kind == EV_CLIENT)
		client_wake(who.idx, t);
}

/* Something about it has changed: both sides look again. */
static void chan_kick(struct sim_chan *ch)
{
	ring_poke(ch->rd_op);
	ring_poke(ch->wr_op);
	sim_wake(ch->who, sim.now + sim_delay());
}

u32 chan_room(u16 c)
{
	struct sim_chan *ch = chan_at(c);

	return ch->cap - ch->len;
}

bool chan_is_readable(u16 c)
{
	struct sim_chan *ch = chan_at(c);

	return ch->len || !ch->writers || ch->reset;
}

bool chan_is_writable(u16 c)
{
	struct sim_chan *ch = chan_at(c);

	return ch->len < ch->cap || !ch->readers;
}

u32 chan_get(u16 c, u8 *dst, u32 max)
{
	struct sim_chan *ch = chan_at(c);
	u32 n = urd_min(max, ch->len);
	u32 first = urd_min(n, ch->cap - ch->head);

	memcpy(dst, chan_bytes[c] + ch->head, first);
	memcpy(dst + first, chan_bytes[c], n - first);
	ch->head = (ch->head + n) % ch->cap;
	ch->len -= n;
	if (n)
		chan_kick(ch);
	return n;
}

u32 chan_put(u16 c, const u8 *src, u32 len)
{
	struct sim_chan *ch = chan_at(c);
	u32 n = urd_min(len, ch->cap - ch->len);
	u32 at = (ch->head + ch->len) % ch->cap;
	u32 first = urd_min(n, ch->cap - at);

	memcpy(chan_bytes[c] + at, src, first);
	memcpy(chan_bytes[c], src + first, n - first);
	ch->len += n;
	if (n)
		chan_kick(ch);
	return n;
}

void chan_close_reader(u16 c)
{
	struct sim_chan *ch = chan_at(c);

	urd_assert(ch->readers > 0);
	ch->readers--;
	chan_kick(ch);
	chan_try_free(c);
}

void chan_close_writer(u16 c)
{
	struct sim_chan *ch = chan_at(c);

	urd_assert(ch->writers > 0);
	ch->writers--;
	chan_kick(ch);
	chan_try_free(c);
}

/* ---- descriptors ---- */

void fds_reset(void)
{
	sim.chan_free_nr = 0;
	for (u32 i = SIM_CHANS; i-- > 0;)
		sim.chan_free[sim.chan_free_nr++] = (u16)i;
	sim.fd_free_nr = 0;
	for (u32 i = SIM_FDS; i-- > 0;)
		sim.fd_free[sim.fd_free_nr++] = (u16)i;
}

int fd_new(enum sim_fd_kind kind, u16 in, u16 out, u16 worker)
{
	struct sim_fd *f;
	u16 i;

	urd_assert(sim.fd_free_nr > 0);
	i = sim.fd_free[--sim.fd_free_nr];
	f = &sim.fd[i];
	f->kind = (u8)kind;
	f->shut = false;
	f->in = in;
	f->out = out;
	f->worker = worker;
	f->gen++;
	sim.fd_open++;
	return SIM_FD_BASE + (int)(f->gen * SIM_FDS + i);
}

struct sim_fd *fd_get(int fd)
{
	u32 n = (u32)(fd - SIM_FD_BASE);
	struct sim_fd *f;

	sim_check(fd >= SIM_FD_BASE, "urd uses a descriptor that it never had");
	f = &sim.fd[n % SIM_FDS];
	sim_check(f->kind != FD_FREE && f->gen == n / SIM_FDS, "urd uses a closed descriptor");
	return f;
}

void fd_shut_write(int fd)
{
	struct sim_fd *f = fd_get(fd);

	if (f->shut)
		return;
	f->shut = true;
	chan_close_writer(f->out);
}

void fd_close(int fd)
{
	struct sim_fd *f = fd_get(fd);
	u16 in = f->in, out = f->out;

	sim_note(NOTE_CLOSE, (u32)(fd - SIM_FD_BASE), f->kind, 0);
	if (in != SIM_NONE)
		sim_check(!sim.chan[in].rd_op, "a descriptor is closed under a read");
	if (out != SIM_NONE && !f->shut)
		sim_check(!sim.chan[out].wr_op, "a descriptor is closed under a write");
	if (f->kind == FD_LISTEN)
		sim_check(!sim.listen_op, "a listener is closed under its accept");
	if (f->kind == FD_PIDFD) {
		sim.worker[f->worker].closed = true;
		worker_put(f->worker);
	}
	f->kind = FD_FREE;
	sim.fd_free[sim.fd_free_nr++] = (u16)((u32)(fd - SIM_FD_BASE) % SIM_FDS);
	sim.fd_open--;
	if (in != SIM_NONE)
		chan_close_reader(in);
	if (out != SIM_NONE && !f->shut)
		chan_close_writer(out);
}
