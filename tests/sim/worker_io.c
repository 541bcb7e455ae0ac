// SPDX-License-Identifier: MIT
/*
 * What a model worker reads and writes: requests in, answers and misdeeds out.
 */
#include <signal.h>
#include <sys/wait.h>

#include "sim.h"

/* ---- out ---- */

void worker_say(u16 idx, enum sim_worker_chan c, const struct sim_enc *e)
{
	struct sim_worker *w = &sim.worker[idx];

	/* whole or not at all: nothing of what is said here may be torn by us */
	if (w->open[c] && chan_room(w->ch[c]) >= e->len)
		(void)chan_put(w->ch[c], e->p, e->len);
}

bool worker_flush(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u32 n = w->out_len - w->out_at;
	u16 c = w->ch[W_TASK_OUT];

	if (!n || !w->open[W_TASK_OUT])
		return true;
	if (!sim.chan[c].readers) {
		worker_die(idx, CLD_KILLED, SIGPIPE);
		return false;
	}
	if (n > 1 && chance(sim.o.short_io))
		n = (u32)rnd_between(1, n);
	n = urd_min(n, w->crash_out);
	n = chan_put(c, worker_io_out(idx) + w->out_at, n);
	w->out_at += n;
	if (w->crash_out != UINT32_MAX) {
		w->crash_out -= n;
		if (!w->crash_out) {
			worker_die(idx, CLD_KILLED, SIGSEGV);
			return false;
		}
	}
	if (w->out_at == w->out_len) {
		w->whole = w->last_id != UINT32_MAX;
		w->out_at = 0;
		w->out_len = 0;
	}
	return true;
}

static void pack_answer(struct sim_enc *e, u32 msgid, u32 id, u32 said, bool app)
{
	u32 mark = enc_begin(e, true);

	enc_byte(e, 0x94);
	enc_uint(e, URD_TAG_RESPONSE);
	enc_uint(e, msgid);
	if (app) {
		enc_byte(e, 0x82);
		enc_str(e, "message");
		enc_str(e, "no such luck");
		enc_str(e, "id");
		enc_uint(e, id);
		enc_byte(e, 0xc0);
	} else {
		enc_byte(e, 0xc0);
		enc_byte(e, 0x93);
		enc_uint(e, id);
		enc_blob(e, id ^ 1, reply_blob(id));
		enc_uint(e, said);
	}
	enc_end(e, mark, true);
}

void worker_chunk(u16 idx, struct sim_task *t)
{
	struct sim_worker *w = &sim.worker[idx];
	struct sim_enc e = { worker_io_out(idx), w->out_len, SIM_IO_BYTES };
	u32 mark;

	if (w->out_len + 2 * SIM_BLOB_MAX + 4096 > SIM_IO_BYTES) {
		t->due = sim.now + sim.o.work_max;
		return;
	}
	mark = enc_begin(&e, true);
	enc_byte(&e, 0x93);
	enc_uint(&e, URD_TAG_CHUNK);
	enc_uint(&e, t->msgid);
	enc_byte(&e, 0x93);
	enc_uint(&e, t->id);
	enc_uint(&e, t->said++);
	enc_blob(&e, t->id ^ 2, t->id % 100);
	enc_end(&e, mark, true);
	w->out_len = e.len;
	t->chunks--;
	t->credit -= t->credit > 0;
	t->due = sim.now + rnd_between(1, sim.o.work_max / 4 + 1);
}

static void pack_other(struct sim_enc *e, enum sim_how how, u32 msgid)
{
	u32 mark = enc_begin(e, true);

	if (how == HOW_NOTIFY || how == HOW_CHUNK) {
		enc_byte(e, 0x93);
		enc_uint(e, how == HOW_CHUNK ? URD_TAG_CHUNK : URD_TAG_NOTIFY);
		if (how == HOW_CHUNK)
			enc_uint(e, msgid);
		else
			enc_str(e, "by.the.way");
	} else {
		enc_byte(e, 0x94);
		enc_uint(e, URD_TAG_REQUEST);
		enc_uint(e, msgid);
		enc_str(e, "and.you");
	}
	enc_byte(e, 0xc0);
	enc_end(e, mark, true);
}

/* Misdeeds that are bytes of some kind. */
static void pack_misdeed(struct sim_enc *e, const struct sim_task *t)
{
	if (t->how == HOW_TWICE || t->how == HOW_SURPLUS)
		pack_answer(e, t->msgid, t->id, t->said, false);
	if (t->how == HOW_TWICE)
		pack_answer(e, t->msgid, t->id, t->said, false);
	else if (t->how == HOW_SURPLUS)
		enc_raw(e, "\x00\x00\x01", 3);
	else if (t->how == HOW_WRONG_ID)
		/* not one of its own: nobody could tell that from a right answer */
		pack_answer(e, t->msgid ^ (1u << rnd_between(16, 31)), t->id, 0, false);
	else if (t->how == HOW_OVERSIZE)
		enc_raw(e, "\x7f\xff\xff\xff\x94\x01", 6);
	else if (t->how == HOW_GARBAGE)
		for (u32 i = (u32)rnd_between(1, 64); i; i--)
			enc_byte(e, (u8)rnd(256));
	else
		pack_other(e, t->how, t->msgid);
}

bool worker_answer(u16 idx, const struct sim_task *t)
{
	struct sim_worker *w = &sim.worker[idx];
	struct sim_enc e = { worker_io_out(idx), w->out_len, SIM_IO_BYTES };
	u32 before = e.len;

	w->whole = false;
	w->last_id = UINT32_MAX;
	sim_note(NOTE_ANSWER, idx, t->id, t->how);
	w->served++;
	switch ((enum sim_how)t->how) {
	case HOW_OK:
	case HOW_APP:
	case HOW_LATE:
	case HOW_STOP:
	case HOW_NEVER:
	case HOW_LAST:
		pack_answer(&e, t->msgid, t->id, t->said, t->how == HOW_APP || t->cancelled);
		w->last_id = t->id;
		if (t->how == HOW_LAST)
			w->exit_at = sim.now;
		break;
	case HOW_NOTIFY:
		pack_other(&e, HOW_NOTIFY, 0);
		pack_answer(&e, t->msgid, t->id, t->said, false);
		break;
	case HOW_CRASH:
		worker_die(idx, CLD_KILLED, SIGSEGV);
		return false;
	case HOW_EXIT:
		worker_die(idx, CLD_EXITED, 0);
		return false;
	case HOW_TORN:
		pack_answer(&e, t->msgid, t->id, t->said, false);
		w->crash_out = urd_min(w->crash_out, (u32)rnd_between(1, e.len - before));
		break;
	case HOW_CLOSE:
		worker_close_chan(idx, W_TASK_OUT);
		if (chance(500))
			worker_close_chan(idx, W_TASK_IN);
		if (chance(300))
			worker_close_chan(idx, W_CTL_OUT);
		break;
	case HOW_TWICE:
	case HOW_SURPLUS:
	case HOW_WRONG_ID:
	case HOW_GARBAGE:
	case HOW_OVERSIZE:
	case HOW_REQUEST:
	case HOW_CHUNK:
	case HOW_NR:
		pack_misdeed(&e, t);
		break;
	}
	w->torn |= t->how == HOW_GARBAGE || t->how == HOW_SURPLUS;
	w->out_len = e.len;
	return true;
}

/* ---- in: requests ---- */

static u8 draw_how(struct sim_worker *w, u64 *due)
{
	u8 how = chance(100) ? HOW_APP : HOW_OK;

	*due = sim.now + rnd_between(0, sim.o.work_max);
	if (!sim.faulty || !chance(sim.o.task_fault))
		return how;
	how = (u8)rnd(HOW_NR);
	if (how != HOW_NOTIFY && how > HOW_APP)
		sim.worker_faults++;
	if (how == HOW_NEVER)
		*due = URD_NEVER;
	if (how == HOW_LATE && sim.o.exec_timeout != URD_NEVER)
		*due = sim.now + sim.o.exec_timeout / 2 + rnd(sim.o.exec_timeout);
	if (how == HOW_STOP)
		w->stall_until = sim.now + rnd_log(NSEC_PER_MSEC, 2 * NSEC_PER_SEC);
	return how;
}

static void take_meta(const struct sim_worker *w, struct sim_task *t, struct sim_dec *d)
{
	u32 n = dec_map(d);

	while (n-- > 0 && !d->bad) {
		struct urd_span key = dec_str(d);

		if (urd_span_is(key, "stream")) {
			sim_check(w->can_stream,
				  "a worker is asked for a stream that it can't make");
			sim_check(sim.req[t->id].stream, "a stream that nobody asked for");
			t->chunks = sim.faulty ? (u32)rnd(48) : 0;
			t->credit = 16;
		}
		dec_skip(d);
	}
}

static void worker_take(u16 idx, struct sim_dec *d)
{
	struct sim_worker *w = &sim.worker[idx];
	struct sim_task *t = &w->tasks[w->tasks_nr];
	struct urd_span method, blob;
	u32 n = dec_array(d);
	bool request = dec_uint(d) == URD_TAG_REQUEST;

	t->msgid = (u32)dec_uint(d);
	t->cancelled = false;
	method = dec_str(d);
	sim_check(!d->bad && request && (n == 4 || n == 5), "a worker gets no request");
	sim_check(n == 4 || w->can_meta, "a worker gets metadata that it did not ask for");
	sim_check(method.len == 4 && !memcmp(method.p, "work", 4),
		  "a worker gets another's method");
	sim_check(dec_array(d) == 2, "a worker gets spoiled params");
	t->id = (u32)dec_uint(d);
	blob = dec_str(d);
	sim_check(!d->bad && t->id < sim.req_nr && blob.len == sim.req[t->id].blob &&
			  blob_is(blob, t->id),
		  "a worker gets spoiled params");
	t->chunks = 0;
	t->said = 0;
	t->credit = 0;
	if (n == 5)
		take_meta(w, t, d);
	sim_check(!d->bad && d->p == d->end, "a worker gets more than a request");
	if (w->early) {
		w->early = false;
		check_seen(t->id, idx);
		return;
	}
	t->how = draw_how(w, &t->due);
	w->whole = false;
	w->last_id = UINT32_MAX;
	sim_note(NOTE_TASK, idx, t->id, t->how);
	w->tasks_nr++;
	sim_check(w->tasks_nr <= w->conc, "a worker gets more requests than it offered to take");
	check_seen(t->id, idx);
	if (sim.faulty && chance(sim.o.retire)) {
		u8 bytes[64];
		struct sim_enc e = { bytes, 0, sizeof(bytes) };
		u32 mark = enc_begin(&e, true);

		enc_byte(&e, 0x93);
		enc_uint(&e, URD_TAG_NOTIFY);
		enc_str(&e, "control.retire");
		enc_byte(&e, 0xc0);
		enc_end(&e, mark, true);
		worker_say(idx, W_CTL_OUT, &e);
	}
}

/* Answers with an error before it has read all, as one may who finds it too long. */
static void worker_early(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	struct sim_dec d = { worker_io_in(idx) + URD_FRAME_HEADER, worker_io_in(idx) + w->in_len,
			     false, false };
	struct sim_enc e = { worker_io_out(idx), w->out_len, SIM_IO_BYTES };
	u32 msgid, id;

	if (w->early || w->in_len < 64 || !sim.faulty || !chance(sim.o.task_fault))
		return;
	(void)dec_array(&d);
	(void)dec_uint(&d);
	msgid = (u32)dec_uint(&d);
	(void)dec_str(&d);
	(void)dec_array(&d);
	id = (u32)dec_uint(&d);
	if (d.bad)
		return;
	w->early = true;
	sim.worker_faults++;
	check_seen(id, SIM_NONE);
	pack_answer(&e, msgid, id, 0, true);
	if (chance(300))
		pack_answer(&e, msgid, id, 0, true);
	w->out_len = e.len;
	if (chance(300)) /* and does not read on for long */
		w->stall_until = sim.now + rnd_log(NSEC_PER_MSEC, 2 * NSEC_PER_SEC);
}

static void worker_frames(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u8 *p = worker_io_in(idx);
	u32 at = 0;

	while (w->in_len - at >= URD_FRAME_HEADER && w->tasks_nr < SIM_TASKS - 1) {
		u32 len = get_be32(p + at);
		struct sim_dec d;

		sim_check(len && len < SIM_IO_BYTES - URD_FRAME_HEADER, "a worker gets no frame");
		if (w->in_len - at - URD_FRAME_HEADER < len)
			break;
		d = (struct sim_dec){ p + at + URD_FRAME_HEADER, p + at + URD_FRAME_HEADER + len,
				      false, false };
		worker_take(idx, &d);
		at += URD_FRAME_HEADER + len;
	}
	memmove(p, p + at, w->in_len - at);
	w->in_len -= at;
	if (w->in_len > URD_FRAME_HEADER && w->out_len == w->out_at && !w->tasks_nr)
		worker_early(idx);
}

bool worker_read_tasks(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u16 c = w->ch[W_TASK_IN];
	u32 n = SIM_IO_BYTES - w->in_len;

	if (!w->ready_sent || !w->open[W_TASK_IN] || !sim.chan[c].len)
		return true;
	n = urd_min(n, sim.chan[c].len);
	if (n > 1 && chance(sim.o.short_io))
		n = (u32)rnd_between(1, n);
	n = urd_min(n, w->crash_in);
	w->in_len += chan_get(c, worker_io_in(idx) + w->in_len, n);
	if (w->crash_in != UINT32_MAX) {
		w->crash_in -= n;
		if (!w->crash_in) {
			worker_die(idx, CLD_KILLED, SIGSEGV);
			return false;
		}
	}
	worker_frames(idx);
	return true;
}

/* ---- in: control ---- */

static void worker_cancel(u16 idx, u32 msgid)
{
	struct sim_worker *w = &sim.worker[idx];
	bool known = false;

	for (u32 i = 0; i < w->tasks_nr; i++) {
		if (w->tasks[i].msgid != msgid)
			continue;
		known = true;
		if (chance(700)) {
			w->tasks[i].how = HOW_OK;
			w->tasks[i].cancelled = true;
			w->tasks[i].chunks = 0;
			w->tasks[i].due = sim.now + sim_delay();
		}
	}
	sim_note(NOTE_TOLD, idx, msgid, known);
}

static void worker_credit(u16 idx, u32 msgid, struct sim_dec *d)
{
	struct sim_worker *w = &sim.worker[idx];
	u32 more = (u32)dec_uint(d);

	for (u32 i = 0; i < w->tasks_nr; i++)
		if (w->tasks[i].msgid == msgid)
			w->tasks[i].credit += more;
}

void worker_read_control(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u16 c = w->ch[W_CTL_IN];
	u32 len;

	if (!w->open[W_CTL_IN] || !sim.chan[c].len)
		return;
	w->ctl_len += chan_get(c, w->ctl + w->ctl_len, (u32)sizeof(w->ctl) - w->ctl_len);
	while (w->ctl_len >= URD_FRAME_HEADER) {
		struct sim_dec d = { w->ctl + URD_FRAME_HEADER, w->ctl + w->ctl_len, false, false };
		struct urd_span method;

		len = get_be32(w->ctl);
		sim_check(len && len < sizeof(w->ctl) - URD_FRAME_HEADER,
			  "a worker is told no frame");
		if (w->ctl_len - URD_FRAME_HEADER < len)
			return;
		sim_check(dec_array(&d) == 3 && dec_uint(&d) == URD_TAG_NOTIFY, "no notification");
		method = dec_str(&d);
		if (urd_span_is(method, "control.credit")) {
			sim_check(w->can_stream && dec_array(&d) == 2, "no credit");
			worker_credit(idx, (u32)dec_uint(&d), &d);
		} else {
			sim_check(urd_span_is(method, "control.cancel"),
				  "a worker is told nonsense");
			sim_check(w->can_cancel, "a worker is told what it did not offer to hear");
			sim_check(dec_array(&d) == 1, "no cancel");
			worker_cancel(idx, (u32)dec_uint(&d));
		}
		sim_check(!d.bad, "a worker is told nonsense");
		w->ctl_len -= URD_FRAME_HEADER + len;
		memmove(w->ctl, w->ctl + URD_FRAME_HEADER + len, w->ctl_len);
	}
}
