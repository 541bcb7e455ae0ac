// SPDX-License-Identifier: MIT
/*
 * What model clients say, and what they make of the answers.
 */
#include <stdio.h>

#include "sim.h"

/* ---- requests ---- */

static u8 draw_kind(void)
{
	static const u8 odd[] = { REQ_PING, REQ_NO_POOL, REQ_NO_METHOD, REQ_MALFORMED };

	if (sim.phase == PHASE_STORM && chance(sim.o.odd_request))
		return odd[rnd(ARRAY_SIZE(odd))];
	return REQ_WORK;
}

u32 req_new(u16 client)
{
	u32 id = sim.req_nr++;
	struct sim_req *r = &sim.req[id];
	bool large = sim.phase == PHASE_STORM && chance(30);

	urd_assert(id < SIM_REQS);
	*r = (struct sim_req){
		.kind = draw_kind(),
		.state = RS_OPEN,
		.pool = (u8)rnd(sim.o.pools),
		.proof = sim.phase == PHASE_PROOF,
		.client = client,
		/* all widths, never the same twice */
		.msgid = chance(500) ? id : id * 2654435761u,
		.granted = 16,
		.blob = (u32)rnd(large ? sim.o.blob_max + 1 : 64),
		.sent_ns = sim.now,
		.deadline_ns = URD_NEVER,
	};
	r->stream = sim.phase == PHASE_STORM && r->kind == REQ_WORK && chance(sim.o.stream);
	r->progress = sim.phase == PHASE_STORM && chance(sim.o.stream);
	if (sim.phase == PHASE_STORM && chance(sim.o.deadline))
		r->deadline_ns = (rnd_log(1, 200) - 1) * NSEC_PER_MSEC;
	sim.req_open++;
	return id;
}

static void pack_meta(struct sim_enc *e, const struct sim_req *r)
{
	bool timed = r->deadline_ns != URD_NEVER;

	enc_byte(e, (u8)(0x80 | (timed + r->stream + r->progress + (r->msgid & 1))));
	if (timed) {
		enc_str(e, "deadline_ms");
		enc_uint(e, r->deadline_ns / NSEC_PER_MSEC);
	}
	if (r->stream) {
		enc_str(e, "stream");
		enc_byte(e, 0xc3);
	}
	if (r->progress) {
		enc_str(e, "progress");
		enc_byte(e, 0xc3);
	}
	if (r->msgid & 1) {
		enc_str(e, "traceparent");
		enc_str(e, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	}
}

static void pack_cancel(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	struct sim_enc e = { client_io_tx(idx), c->tx_len, SIM_IO_BYTES };
	struct sim_req *r;
	u32 mark;

	if (!c->open_nr)
		return;
	r = &sim.req[c->open[rnd(c->open_nr)]];
	r->cancelled = true;
	mark = enc_begin(&e, !c->plain);
	enc_byte(&e, 0x93);
	enc_uint(&e, URD_TAG_NOTIFY);
	enc_str(&e, "urd.cancel");
	enc_byte(&e, 0x91);
	enc_uint(&e, r->msgid);
	enc_end(&e, mark, !c->plain);
	c->tx_len = e.len;
}

static void pack_credit(u16 idx, struct sim_req *r, u32 n)
{
	struct sim_client *c = &sim.client[idx];
	struct sim_enc e = { client_io_tx(idx), c->tx_len, SIM_IO_BYTES };
	u32 mark;

	if (c->half || c->garbage || c->tx_len + 4096 > SIM_IO_BYTES)
		return;
	mark = enc_begin(&e, !c->plain);
	enc_byte(&e, 0x93);
	enc_uint(&e, URD_TAG_NOTIFY);
	enc_str(&e, "urd.credit");
	enc_byte(&e, 0x92);
	enc_uint(&e, r->msgid);
	enc_uint(&e, n);
	enc_end(&e, mark, !c->plain);
	c->tx_len = e.len;
	r->granted += n;
}

void client_pack(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	struct sim_enc e = { client_io_tx(idx), c->tx_len, SIM_IO_BYTES };
	u32 id = req_new(idx);
	struct sim_req *r = &sim.req[id];
	bool meta = r->deadline_ns != URD_NEVER || r->stream || r->progress;
	char method[32] = "work";
	u32 mark = enc_begin(&e, !c->plain);

	if (r->kind == REQ_PING)
		snprintf(method, sizeof(method), "urd.ping");
	else if (r->kind == REQ_NO_POOL)
		snprintf(method, sizeof(method), "nowhere/work");
	else if (r->kind == REQ_NO_METHOD)
		snprintf(method, sizeof(method), "p%u/", r->pool);
	else if (r->pool || chance(300))
		snprintf(method, sizeof(method), "p%u/work", r->pool);
	enc_byte(&e, meta ? 0x95 : 0x94);
	enc_uint(&e, URD_TAG_REQUEST);
	enc_uint(&e, r->msgid);
	if (r->kind == REQ_MALFORMED)
		enc_uint(&e, 7);
	else
		enc_str(&e, method);
	enc_byte(&e, 0x92);
	enc_uint(&e, id);
	enc_blob(&e, id, r->blob);
	if (meta)
		pack_meta(&e, r);
	enc_end(&e, mark, !c->plain);
	c->tx_len = e.len;
	c->open[c->open_nr++] = id;
	sim_note(NOTE_SEND, idx, id, r->msgid);
	if (r->stream && chance(200))
		pack_credit(idx, r, (u32)rnd_between(1, 30));
	if (sim.phase == PHASE_STORM && chance(sim.o.cancel))
		pack_cancel(idx);
}

/* ---- answers ---- */

static void check_result(u32 id, struct urd_span value)
{
	const struct sim_req *r = &sim.req[id];
	struct sim_dec d = { value.p, value.p + value.len, false, false };
	bool ping = r->kind == REQ_PING;
	struct urd_span blob;
	u32 got;

	sim_check(dec_array(&d) == (ping ? 2 : 3), "an answer is spoiled");
	got = (u32)dec_uint(&d);
	blob = dec_str(&d);
	if (!ping)
		sim_check(dec_uint(&d) == r->chunks, "parts of a streamed answer are missing");
	sim_check(!d.bad && d.p == d.end, "an answer is spoiled");
	sim_check(got == id, "an answer is another request's");
	sim_check(blob.len == (ping ? r->blob : reply_blob(id)) &&
			  blob_is(blob, ping ? id : id ^ 1),
		  "an answer is spoiled");
}

static void check_app(u32 id, struct urd_span value)
{
	struct sim_dec d = { value.p, value.p + value.len, false, false };
	u64 got = UINT64_MAX;
	u32 n;

	/* without memory for it the worker's words are left out */
	if (!value.len && sim.o.squat)
		return;
	n = dec_map(&d);

	while (n-- > 0 && !d.bad) {
		struct urd_span key = dec_str(&d);

		if (key.len == 2 && !memcmp(key.p, "id", 2))
			got = dec_uint(&d);
		else
			dec_skip(&d);
	}
	sim_check(!d.bad && got == id, "an error is another request's");
}

static void check_code(const struct sim_req *r, enum urd_code code)
{
	static const u32 odd = 1u << URD_RATE | 1u << URD_BUSY | 1u << URD_DRAINING;
	u32 bit = 1u << code;
	u64 params = 1 + 5 + 5 + r->blob; /* at most */

	if (r->kind == REQ_PING)
		sim_check(code == URD_OK, "a ping fails");
	else if (r->kind == REQ_NO_POOL)
		sim_check(code == URD_NO_POOL || bit & odd, "a pool is found that is not there");
	else if (r->kind == REQ_NO_METHOD || r->kind == REQ_MALFORMED)
		sim_check(code == URD_BAD_REQUEST || bit & odd, "a bad request is not refused");
	else
		sim_check(code != URD_NO_POOL && code != URD_BAD_REQUEST && code != URD_IO,
			  "a request fails for no reason");
	if (code == URD_TOO_LARGE)
		sim_check(params > sim.o.request_max, "a request is too large that is not");
	if (code == URD_CANCELLED)
		sim_check(r->cancelled, "a request is cancelled that nobody cancelled");
	if (code == URD_WORKER_DIED && !sim.o.squat)
		sim_check(!r->owed, "an answer is lost that a worker gave before it ended");
	if (code == URD_DRAINING)
		sim_check(sim.phase >= PHASE_DRAIN, "a request is refused long before the end");
	if (r->kind != REQ_WORK)
		return;
	if (code == URD_OK || code == URD_APP)
		sim_check(r->blob + 4 <= sim.o.request_max, "a request is not too large that is");
	if (r->proof)
		sim_check(code == URD_OK || code == URD_APP || code == URD_TOO_LARGE,
			  "not all is well after all faults are over");
	if (sim.calm && sim.phase != PHASE_DRAIN)
		sim_check(code <= URD_QUEUE_TIMEOUT || code == URD_TOO_LARGE || code == URD_RATE,
			  "a request fails although no worker does anything wrong");
}

static void check_when(const struct sim_req *r, enum urd_code code)
{
	u64 took = sim.now - r->sent_ns;

	if (code == URD_QUEUE_TIMEOUT)
		sim_check(took >= urd_min(sim.o.queue_timeout, r->deadline_ns),
			  "a request expires in the queue too early");
	if (code == URD_EXEC_TIMEOUT)
		sim_check(took >= urd_min(sim.o.exec_timeout, r->deadline_ns),
			  "a request expires with a worker too early");
}

void req_answered(u32 id, enum urd_code code, enum urd_executed executed, struct urd_span value)
{
	struct sim_req *r = &sim.req[id];

	sim_note(NOTE_GOT, r->client, id, code);
	sim_check(code < URD_CODE_NR, "an outcome that is none");
	sim_check(r->state == RS_OPEN, "a request is answered twice");
	r->state = RS_DONE;
	sim.outcomes[code]++;
	check_code(r, code);
	check_when(r, code);
	if (code == URD_OK || code == URD_APP)
		sim_check(executed == URD_EXECUTED_YES, "an answer says that it was not executed");
	else
		sim_check(executed != URD_EXECUTED_YES, "a failure says that it was executed");
	if (r->kind == REQ_WORK && executed == URD_EXECUTED_YES)
		sim_check(r->seen == 1, "an answer to what no worker has seen");
	if (executed == URD_EXECUTED_NO) {
		sim_check(r->seen == 0, "a worker has seen what was said not to be executed");
		r->told_no = true;
	}
	if (code == URD_OK)
		check_result(id, value);
	else if (code == URD_APP)
		check_app(id, value);
}

void req_chunk(u32 id, struct urd_span data)
{
	struct sim_req *r = &sim.req[id];
	struct sim_dec d = { data.p, data.p + data.len, false, false };

	sim_check(r->state == RS_OPEN && r->stream, "a part of an answer that nobody waits for");
	sim_check(dec_array(&d) == 3 && dec_uint(&d) == id, "a part of another's answer");
	sim_check(dec_uint(&d) == r->chunks++, "a part of an answer is lost or out of order");
	sim_check(r->chunks <= r->granted, "more of a stream than was asked for");
	sim_check(blob_is(dec_str(&d), id ^ 2) && !d.bad && d.p == d.end,
		  "a part of an answer is spoiled");
}

/* Read an error map as docs/client-protocol.md has it. */
static void read_error(struct sim_dec *d, u32 *code, enum urd_executed *executed,
		       struct urd_span *detail)
{
	u32 n = dec_map(d);

	while (n-- > 0 && !d->bad) {
		struct urd_span key = dec_str(d), s;
		const u8 *at = d->p;

		if (urd_span_is(key, "code")) {
			*code = (u32)dec_uint(d);
		} else if (urd_span_is(key, "executed")) {
			s = dec_str(d);
			*executed = urd_span_is(s, "no")  ? URD_EXECUTED_NO :
				    urd_span_is(s, "yes") ? URD_EXECUTED_YES :
							    URD_EXECUTED_MAYBE;
		} else {
			dec_skip(d);
			if (urd_span_is(key, "detail"))
				*detail = (struct urd_span){ at, (u32)(d->p - at) };
		}
	}
}

static u32 client_find(u16 idx, u32 msgid, bool last)
{
	struct sim_client *c = &sim.client[idx];

	for (u32 i = 0; i < c->open_nr; i++) {
		u32 id = c->open[i];

		if (sim.req[id].msgid != msgid)
			continue;
		if (!last)
			return id;
		c->open[i] = c->open[--c->open_nr];
		sim.req_open--;
		return id;
	}
	return UINT32_MAX;
}

/* A chunk or a report of progress: what comes before the answer. */
static void client_part(u16 idx, struct sim_dec *d, u32 tag)
{
	struct urd_span data;
	struct sim_req *r;
	u32 msgid, id;
	const u8 *at;

	if (tag == URD_TAG_NOTIFY) {
		(void)dec_str(d);
		(void)dec_array(d);
	}
	msgid = (u32)dec_uint(d);
	at = d->p;
	dec_skip(d);
	if (d->bad)
		return;
	data = (struct urd_span){ at, (u32)(d->p - at) };
	id = client_find(idx, msgid, false);
	sim_check(id != UINT32_MAX, "a part of an answer to nothing");
	r = &sim.req[id];
	if (tag == URD_TAG_CHUNK) {
		req_chunk(id, data);
		if (r->chunks % 8 == 0)
			pack_credit(idx, r, 8);
	} else {
		struct sim_dec v = { data.p, data.p + data.len, false, false };

		sim_check(r->progress && dec_uint(&v) == id, "progress of another request");
	}
}

/* One answer at the cursor; nothing is done about it unless all of it is there. */
static void client_answer(u16 idx, struct sim_dec *d)
{
	struct urd_span value = { NULL, 0 };
	enum urd_executed executed = URD_EXECUTED_YES;
	u32 n = dec_array(d), tag = (u32)dec_uint(d), msgid, code = URD_OK, id;
	const u8 *at;

	if (!d->bad && n == 3) {
		sim_check(tag == URD_TAG_CHUNK || tag == URD_TAG_NOTIFY, "a client gets no answer");
		client_part(idx, d, tag);
		return;
	}
	msgid = (u32)dec_uint(d);
	if (!d->bad)
		sim_check(n == 4 && tag == URD_TAG_RESPONSE, "a client gets no answer");
	if (dec_is_nil(d)) {
		dec_skip(d);
		at = d->p;
		dec_skip(d);
		value = (struct urd_span){ at, (u32)(d->p - at) };
	} else {
		read_error(d, &code, &executed, &value);
		dec_skip(d);
		if (!d->bad)
			sim_check(code > URD_OK && code < URD_CODE_NR, "an error without a code");
	}
	if (d->bad)
		return;
	id = client_find(idx, msgid, true);
	if (id != UINT32_MAX)
		req_answered(id, (enum urd_code)code, executed, value);
	else
		sim_check(sim.client[idx].garbage, "a client gets an answer to nothing");
}

void client_read_answers(u16 idx)
{
	struct sim_client *c = &sim.client[idx];
	u8 *p = client_io_rx(idx);
	u32 at = 0;

	for (;;) {
		struct sim_dec d = { p + at, p + c->rx_len, false, false };

		if (d.p == d.end)
			break;
		if (!c->plain) {
			u32 len;

			if (c->rx_len - at < URD_FRAME_HEADER)
				break;
			len = get_be32(p + at);
			sim_check(len && len < SIM_IO_BYTES - URD_FRAME_HEADER, "no frame");
			if (c->rx_len - at - URD_FRAME_HEADER < len)
				break;
			d.p += URD_FRAME_HEADER;
			d.end = d.p + len;
		}
		client_answer(idx, &d);
		if (d.bad && d.lacks && c->plain)
			break;
		sim_check(!d.bad, "a client gets bytes that are no answer");
		sim_check(c->plain || d.p == d.end, "a client gets more than an answer");
		at = (u32)(d.p - p);
	}
	memmove(p, p + at, c->rx_len - at);
	c->rx_len -= at;
}
