// SPDX-License-Identifier: MIT
/*
 * Model clients: how they come and go, what they do wrong, and the callers of
 * this process.  What is said on a connection is in client_io.c.
 */
#include <stdio.h>

#include "sim.h"

static u8 io_tx[SIM_CLIENTS][SIM_IO_BYTES];
static u8 io_rx[SIM_CLIENTS][SIM_IO_BYTES];

u8 *client_io_tx(u16 idx)
{
	return io_tx[idx];
}

u8 *client_io_rx(u16 idx)
{
	return io_rx[idx];
}

void client_wake(u16 idx, u64 t)
{
	struct sim_client *c = &sim.client[idx];

	if (c->sched <= t)
		return;
	c->sched = urd_max(t, sim.now);
	ev_push(c->sched, EV_CLIENT, idx, 0);
}

void clients_init(void)
{
	for (u16 i = 0; i < sim.o.clients; i++) {
		sim.client[i].sched = URD_NEVER;
		sim.client[i].next_at = sim.now + rnd(NSEC_PER_MSEC);
		client_wake(i, sim.client[i].next_at);
	}
}

void clients_heal(void)
{
	for (u16 i = 0; i < sim.o.clients; i++) {
		sim.client[i].depth = 1;
		sim.client[i].stall_until = 0;
		sim.client[i].next_at = urd_min(sim.client[i].next_at, sim.now + NSEC_PER_MSEC);
		client_wake(i, sim.now);
	}
}

/* ---- coming and going ---- */

static bool client_may_send(u16 idx)
{
	if (sim.req_nr >= sim.req_limit)
		return false;
	return sim.phase == PHASE_STORM || (sim.phase == PHASE_PROOF && idx == 0);
}

static void client_connect(u16 idx)
{
	struct sim_client *c = &sim.client[idx];

	c->state = CS_KNOCKING;
	c->plain = chance(300);
	c->half = false;
	c->garbage = false;
	c->accepted = false;
	c->honest = !sim.faulty || !chance(sim.o.client_fault);
	c->left = (u32)rnd_log(1, 500);
	c->depth = sim.phase == PHASE_PROOF ? 1 : (u32)rnd_between(1, sim.o.depth);
	c->tx = chan_new((u32)sim.o.socket_bytes);
	c->rx = chan_new((u32)sim.o.socket_bytes);
	sim.chan[c->tx].who = (struct sim_who){ EV_CLIENT, idx };
	sim.chan[c->rx].who = (struct sim_who){ EV_CLIENT, idx };
	c->tx_at = 0;
	c->tx_len = 0;
	c->rx_len = 0;
	ev_push(sim.now + sim_delay(), EV_ACCEPT, idx, 0);
}

void client_accepted(u32 idx)
{
	struct sim_client *c = &sim.client[idx];

	c->state = CS_OPEN;
	c->accepted = true;
	sim_note(NOTE_KNOCK, idx, c->tx, 0);
	client_wake((u16)idx, sim.now + sim_delay());
}

void client_gone(u16 idx, bool by_us)
{
	struct sim_client *c = &sim.client[idx];

	sim_note(by_us ? NOTE_HANGUP : NOTE_CUT, idx, c->open_nr, c->open_nr);
	for (u32 i = 0; i < c->open_nr; i++)
		sim.req[c->open[i]].state = RS_LOST;
	sim.req_open -= c->open_nr;
	c->open_nr = 0;
	if (by_us && sim.chan[c->rx].len && sim.chan[c->tx].readers)
		sim.chan[c->tx].reset = true;
	if (c->state == CS_KNOCKING) {
		/* nobody ever had the other ends */
		chan_close_reader(c->tx);
		chan_close_writer(c->rx);
	}
	c->state = CS_AWAY;
	if (!c->half)
		chan_close_writer(c->tx);
	chan_close_reader(c->rx);
	c->next_at = sim.now + rnd(sim.o.think_max + NSEC_PER_MSEC);
	client_wake(idx, c->next_at);
}

/* urd has closed the connection: was that right? */
static void client_cut(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	bool refused = sim.urd->front.refused > 0;
	bool done = c->half && !c->open_nr;

	if (c->honest && sim.phase < PHASE_DRAIN && !done && !refused)
		sim_check(false, "a connection that did nothing wrong is cut");
	client_gone(idx, false);
}

/* ---- misdeeds ---- */

static void client_garbage(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	struct sim_enc e = { client_io_tx(idx), c->tx_len, SIM_IO_BYTES };
	u32 n = (u32)rnd_log(1, 100);

	if (e.len + 200 > SIM_IO_BYTES)
		return;
	c->garbage = true;
	if (chance(200) && !c->plain) { /* a frame longer than any may be */
		enc_raw(&e, "\x7f\x00\x00\x00\x94", 5);
	} else {
		while (n-- > 0)
			enc_byte(&e, (u8)rnd(256));
	}
	c->tx_len = e.len;
}

/* Returns false if it is gone. */
static bool client_misbehave(u16 idx)
{
	struct sim_client *c = &sim.client[idx];

	if (c->honest || !sim.faulty || !chance(50))
		return true;
	switch (rnd(4)) {
	case 0:
		client_gone(idx, true);
		return false;
	case 1:
		c->stall_until = sim.now + rnd_log(NSEC_PER_MSEC, 2 * sim.o.write_timeout);
		break;
	case 2:
		client_garbage(idx);
		break;
	default:
		if (!c->half) {
			c->half = true;
			chan_close_writer(c->tx);
		}
		break;
	}
	return true;
}

/* ---- a step ---- */

static void client_read(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	u32 n = urd_min(SIM_IO_BYTES - c->rx_len, sim.chan[c->rx].len);

	if (!n)
		return;
	if (n > 1 && chance(sim.o.short_io))
		n = (u32)rnd_between(1, n);
	c->rx_len += chan_get(c->rx, client_io_rx(idx) + c->rx_len, n);
	client_read_answers(idx);
}

static void client_write(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	u32 n = c->tx_len - c->tx_at;

	if (!n || c->half)
		return;
	if (n > 1 && chance(sim.o.short_io))
		n = (u32)rnd_between(1, n);
	c->tx_at += chan_put(c->tx, client_io_tx(idx) + c->tx_at, n);
	if (c->tx_at == c->tx_len) {
		c->tx_at = 0;
		c->tx_len = 0;
	}
}

static void client_make(u16 idx)
{
	struct sim_client *c = &sim.client[idx];

	while (c->left && !c->half && !c->garbage && c->open_nr < c->depth &&
	       c->next_at <= sim.now && c->tx_len + SIM_BLOB_MAX + 8192 < SIM_IO_BYTES &&
	       client_may_send(idx)) {
		client_pack(idx);
		c->left--;
		if (sim.o.think_max && chance(300))
			c->next_at = sim.now + rnd(sim.o.think_max);
	}
}

/* Whoever has sent his last byte can't ask for more of a stream. */
static bool client_streams(u16 idx)
{
	const struct sim_client *c = &sim.client[idx];

	for (u32 i = 0; i < c->open_nr; i++)
		if (sim.req[c->open[i]].stream)
			return true;
	return false;
}

/* Everything said and heard: some close, some only half of it first. */
static bool client_ends(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	bool said = (!c->left || !client_may_send(idx)) && c->tx_at == c->tx_len;

	if (!said)
		return false;
	if (!c->half && chance(300) && !client_streams(idx)) {
		c->half = true;
		chan_close_writer(c->tx);
	}
	if (c->open_nr || c->half)
		return false;
	client_gone(idx, true);
	return true;
}

static void client_next(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	u64 t = URD_NEVER;

	if (sim.chan[c->rx].len || (c->tx_at < c->tx_len && chan_is_writable(c->tx)))
		t = sim.now + sim_delay();
	if (c->next_at > sim.now)
		t = urd_min(t, c->next_at);
	else if (c->open_nr < c->depth && c->left && !c->half && !c->garbage)
		t = urd_min(t, sim.now + sim_delay() + (client_may_send(idx) ? 0 : NSEC_PER_MSEC));
	else if (!c->honest)
		t = urd_min(t, sim.now + NSEC_PER_MSEC);
	if (t != URD_NEVER)
		client_wake(idx, t);
}

static void client_away(u16 idx)
{
	struct sim_client *c = &sim.client[idx];

	if (sim.listen_fd < 0 || sim.req_nr >= sim.req_limit || !client_may_send(idx))
		return;
	if (c->next_at > sim.now) {
		client_wake(idx, c->next_at);
		return;
	}
	client_connect(idx);
}

void client_step(u32 i)
{
	u16 idx = (u16)i;
	struct sim_client *c = &sim.client[idx];

	c->sched = URD_NEVER;
	if (c->state == CS_AWAY)
		client_away(idx);
	if (c->state == CS_KNOCKING && sim.listen_fd < 0)
		client_gone(idx, true);
	if (c->state != CS_OPEN)
		return;
	if (c->stall_until > sim.now) {
		client_wake(idx, c->stall_until);
		return;
	}
	client_read(idx);
	if (!sim.chan[c->rx].len && !sim.chan[c->rx].writers) {
		client_cut(idx);
		return;
	}
	if (!client_misbehave(idx))
		return;
	if (sim.phase == PHASE_HEAL && c->half && client_streams(idx)) {
		client_gone(idx, true);
		return;
	}
	client_make(idx);
	client_write(idx);
	if (!client_ends(idx))
		client_next(idx);
}

/* ---- callers of this process ---- */

static void caller_done(const struct urd_reply *reply, void *arg)
{
	struct urd_span value = { reply->data, (u32)reply->len };
	u32 id = (u32)(uintptr_t)arg;

	urd_assert(sim.callers_open > 0);
	sim.callers_open--;
	sim.req_open--;
	req_answered(id, reply->code, reply->executed, value);
}

static void caller_chunk(const void *data, size_t len, void *arg)
{
	sim.req[(u32)(uintptr_t)arg].granted++; /* the library does so itself */
	req_chunk((u32)(uintptr_t)arg, (struct urd_span){ data, (u32)len });
}

void callers_step(void)
{
	static u8 params[SIM_BLOB_MAX + 64];
	struct sim_enc e = { params, 0, sizeof(params) };
	char pool[16];
	struct urd_call call = { .method = "work", .params = params };
	struct sim_req *r;
	u32 id;
	int ret;

	sim.caller_at = sim.now + rnd(sim.o.think_max + 100 * NSEC_PER_USEC);
	if (sim.phase != PHASE_STORM || sim.req_nr >= sim.req_limit ||
	    sim.callers_open >= sim.o.callers)
		return;
	id = req_new(SIM_NONE);
	r = &sim.req[id];
	r->kind = REQ_WORK;
	r->stream = chance(sim.o.stream);
	if (r->stream)
		call.chunk = caller_chunk;
	if (chance(500)) {
		snprintf(pool, sizeof(pool), "p%u", r->pool);
		call.pool = pool;
	} else {
		r->pool = 0;
	}
	enc_byte(&e, 0x92);
	enc_uint(&e, id);
	enc_blob(&e, id, r->blob);
	call.params_len = e.len;
	call.deadline_ns = r->deadline_ns == URD_NEVER ? URD_OFF : r->deadline_ns;
	sim_note(NOTE_CALL, id, call.deadline_ns, 0);
	sim.callers_open++;
	ret = urd_submit(sim.urd, &call, caller_done, (void *)(uintptr_t)id);
	sim_check(ret == 0, "a call is refused that nothing is wrong with");
}
