// SPDX-License-Identifier: MIT
/*
 * A model worker's life: how it boots, what it does wrong, when it ends.  What
 * it reads and writes is in worker_io.c.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "sim.h"

static u8 io_in[SIM_WORKERS][SIM_IO_BYTES];
static u8 io_out[SIM_WORKERS][SIM_IO_BYTES];

u8 *worker_io_in(u16 idx)
{
	return io_in[idx];
}

u8 *worker_io_out(u16 idx)
{
	return io_out[idx];
}

void worker_wake(u16 idx, u64 t)
{
	struct sim_worker *w = &sim.worker[idx];

	if (!w->used || w->dead || w->sched <= t)
		return;
	w->sched = urd_max(t, sim.now);
	ev_push(w->sched, EV_WORKER, idx, 0);
}

/* ---- birth ---- */

/* What is wrong with this one, if anything is to be. */
static void worker_spoil(struct sim_worker *w)
{
	sim.worker_faults++;
	switch (rnd(13)) {
	case 0:
		w->can_stream = w->can_meta && chance(500);
		w->boot_at = sim.now + sim.o.boot_timeout + rnd(sim.o.boot_timeout);
		break;
	case 1:
	case 2:
		w->ready = (u8)rnd(READY_NR);
		break;
	case 3:
		w->exit_at = sim.now + rnd(2 * sim.o.boot_max + 1);
		break;
	case 4:
		w->crash_in = (u32)rnd_log(1, 4096);
		break;
	case 5:
		w->crash_out = (u32)rnd_log(1, 4096);
		break;
	case 6:
		w->ignores_term = true;
		w->ignores_eof = chance(500);
		break;
	case 7:
		w->ignores_eof = true;
		break;
	case 8:
		w->exit_at = sim.now + rnd_log(NSEC_PER_MSEC, NSEC_PER_SEC);
		break;
	case 9:
	case 10:
		w->close_at = sim.now + rnd_log(10 * NSEC_PER_USEC, NSEC_PER_SEC);
		break;
	case 11:
		w->mute = true;
		break;
	default:
		w->conc = (u32)rnd_between(1, SIM_TASKS - 4);
		w->stall_until = sim.now + rnd_log(NSEC_PER_MSEC, 2 * NSEC_PER_SEC);
		break;
	}
}

u16 worker_new(u32 slot, u16 pool, bool folk)
{
	struct sim_worker *w;
	u16 idx = 0;

	while (idx < SIM_WORKERS && sim.worker[idx].used)
		idx++;
	urd_assert(idx < SIM_WORKERS);
	w = &sim.worker[idx];
	memset(w, 0, sizeof(*w));
	w->used = true;
	w->pid = ++sim.pid;
	w->slot = slot;
	w->pool = pool;
	w->folk = folk;
	w->sched = URD_NEVER;
	w->last_id = UINT32_MAX;
	w->exit_at = URD_NEVER;
	w->close_at = URD_NEVER;
	w->beat_at = URD_NEVER;
	w->chat_at = URD_NEVER;
	w->crash_in = UINT32_MAX;
	w->crash_out = UINT32_MAX;
	w->conc = folk ? 1 : (u32)sim.o.concurrency;
	w->can_cancel = !folk && chance(500);
	w->can_meta = !folk && chance(500);
	w->boot_at = sim.now + rnd_between(1, sim.o.boot_max);
	w->heirs = sim.faulty && chance(sim.o.heirs);
	w->escaped = w->heirs && chance(300);
	for (u32 i = 0; i < W_CHANS; i++) {
		w->ch[i] = chan_new((u32)sim.o.pipe_bytes);
		w->open[i] = true;
		sim.chan[w->ch[i]].who = (struct sim_who){ EV_WORKER, idx };
	}
	if (sim.faulty && chance(sim.o.worker_fault))
		worker_spoil(w);
	if (sim.faulty && chance(sim.o.chatter))
		w->chat_at = sim.now + rnd(sim.o.boot_max);
	sim.alive++;
	worker_wake(idx, w->boot_at);
	worker_wake(idx, w->exit_at);
	worker_wake(idx, w->chat_at);
	worker_wake(idx, w->close_at);
	return idx;
}

/* ---- death ---- */

static bool chan_is_input(enum sim_worker_chan c)
{
	return c == W_TASK_IN || c == W_CTL_IN;
}

void worker_close_chan(u16 idx, enum sim_worker_chan c)
{
	struct sim_worker *w = &sim.worker[idx];

	if (!w->open[c])
		return;
	w->open[c] = false;
	if (chan_is_input(c))
		chan_close_reader(w->ch[c]);
	else
		chan_close_writer(w->ch[c]);
}

void worker_heirs_gone(u16 idx)
{
	sim.worker[idx].heirs = false;
	for (u32 i = 0; i < W_CHANS; i++)
		worker_close_chan(idx, i);
}

void worker_die(u16 idx, int code, int status)
{
	struct sim_worker *w = &sim.worker[idx];

	sim_check(!w->dead, "a worker dies twice");
	w->dead = true;
	if (w->whole && w->conc == 1 && !w->torn && !w->killed && !w->term)
		sim.req[w->last_id].owed = true;
	w->status_code = code;
	w->status = status;
	sim.alive--;
	sim_note(NOTE_EXIT, idx, (u64)code, (u64)status);
	if (!w->heirs)
		worker_heirs_gone(idx);
	ring_exited(idx);
}

void worker_put(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];

	sim_check(w->dead && w->reaped && w->closed, "a worker is forgotten while it lives");
	worker_heirs_gone(idx);
	w->used = false;
}

void workers_heal(void)
{
	for (u32 i = 0; i < SIM_WORKERS; i++) {
		struct sim_worker *w = &sim.worker[i];

		if (!w->used || w->dead)
			continue;
		w->stall_until = 0;
		w->close_at = URD_NEVER;
		w->exit_at = URD_NEVER;
		w->crash_in = UINT32_MAX;
		w->crash_out = UINT32_MAX;
		w->mute = false;
		w->chat_at = URD_NEVER;
		if (w->torn) /* without an exec_timeout nobody else would end that */
			w->exit_at = sim.now;
		/* nobody would see it while it is idle */
		for (u32 k = 0; k < W_CHANS; k++)
			if (!w->open[k])
				w->exit_at = sim.now;
		for (u32 k = 0; k < w->tasks_nr; k++) {
			w->tasks[k].chunks = 0;
			if (w->tasks[k].how == HOW_NEVER || w->tasks[k].how == HOW_LATE)
				w->tasks[k].due = sim.now + sim_delay();
			if (w->tasks[k].how > HOW_APP)
				w->tasks[k].how = HOW_OK;
		}
		worker_wake((u16)i, sim.now);
	}
}

/* ---- a step ---- */

static void say_ready(struct sim_enc *e, const struct sim_worker *w, enum sim_ready how)
{
	bool pid = how != READY_NO_PID, version = !w->folk;
	bool conc = version && (w->conc > 1 || how == READY_ZERO || chance(300));
	u32 features = w->can_cancel + w->can_meta + w->can_stream;
	u32 mark = enc_begin(e, true);

	enc_byte(e, 0x93);
	enc_uint(e, URD_TAG_NOTIFY);
	enc_str(e, "control.ready");
	enc_byte(e, (u8)(0x80 | (pid + version + conc + (features > 0))));
	if (pid) {
		enc_str(e, "pid");
		enc_uint(e, (u64)w->pid);
	}
	if (version) {
		enc_str(e, "protocol");
		enc_uint(e, how == READY_VERSION ? 2 : 1);
	}
	if (conc) {
		enc_str(e, "concurrency");
		enc_uint(e, how == READY_ZERO ? 0 : w->conc);
	}
	if (features) {
		enc_str(e, "features");
		enc_byte(e, (u8)(0x90 | features));
		if (w->can_cancel)
			enc_str(e, "cancel");
		if (w->can_meta)
			enc_str(e, "meta");
		if (w->can_stream)
			enc_str(e, "stream");
	}
	enc_end(e, mark, true);
}

static void say_notify(struct sim_enc *e, const char *method)
{
	u32 mark = enc_begin(e, true);

	enc_byte(e, 0x93);
	enc_uint(e, URD_TAG_NOTIFY);
	enc_str(e, method);
	enc_byte(e, 0xc0);
	enc_end(e, mark, true);
}

static void worker_boot(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u8 bytes[512];
	struct sim_enc e = { bytes, 0, sizeof(bytes) };

	if (w->ready_sent || w->boot_at > sim.now || w->ready == READY_NEVER)
		return;
	w->ready_sent = true;
	if (w->ready == READY_OTHER)
		say_notify(&e, "control.heartbeat");
	if (w->ready == READY_GARBAGE)
		enc_raw(&e, "\xff\xff\xff\xffHello", 9);
	say_ready(&e, w, w->ready);
	if (w->ready == READY_TWICE)
		say_ready(&e, w, READY_GOOD);
	if (w->ready == READY_RETIRE)
		say_notify(&e, "control.retire");
	worker_say(idx, W_CTL_OUT, &e);
}

/* Lines on its outputs and notifications that mean little. */
static void worker_chat(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u8 bytes[2048];
	struct sim_enc e = { bytes, 0, sizeof(bytes) };
	u32 n = (u32)rnd_log(1, 1500);

	if (w->chat_at > sim.now)
		return;
	w->chat_at = sim.faulty ? sim.now + rnd_log(10 * NSEC_PER_USEC, 20 * NSEC_PER_MSEC) :
				  URD_NEVER;
	if (w->ready_sent && chance(400)) {
		say_notify(&e, chance(800) ? "control.heartbeat" : "control.unheard_of");
		worker_say(idx, W_CTL_OUT, &e);
		return;
	}
	memset(bytes, 'x', n);
	for (u32 i = 0; i < n; i += 1 + (u32)rnd(200))
		bytes[i] = '\n';
	e.len = n;
	worker_say(idx, chance(500) ? W_OUT : W_ERR, &e);
}

/* Signs of life and of progress, as long as there is work. */
static void worker_beat(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u8 bytes[256];
	struct sim_enc e = { bytes, 0, sizeof(bytes) };

	if (w->folk || w->mute || !w->tasks_nr || w->beat_at > sim.now)
		return;
	w->beat_at = sim.now + sim.o.heartbeat / 4;
	if (chance(500)) {
		const struct sim_task *t = &w->tasks[rnd(w->tasks_nr)];
		u32 mark = enc_begin(&e, true);

		enc_byte(&e, 0x93);
		enc_uint(&e, URD_TAG_NOTIFY);
		enc_str(&e, "control.progress");
		enc_byte(&e, 0x92);
		enc_uint(&e, t->msgid);
		enc_uint(&e, t->id);
		enc_end(&e, mark, true);
	} else {
		say_notify(&e, "control.heartbeat");
	}
	worker_say(idx, W_CTL_OUT, &e);
}

/* One of its streams, or all of them, for no reason. */
static void worker_close(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];

	if (w->close_at > sim.now)
		return;
	w->close_at = URD_NEVER;
	if (chance(700))
		worker_close_chan(idx, W_TASK_OUT);
	if (chance(500))
		worker_close_chan(idx, W_CTL_OUT);
	if (chance(300))
		worker_close_chan(idx, W_TASK_IN);
	if (chance(300))
		worker_close_chan(idx, W_CTL_IN);
}

/* Does it end now? */
static bool worker_leaves(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	bool eof = w->open[W_TASK_IN] && !sim.chan[w->ch[W_TASK_IN]].writers &&
		   !sim.chan[w->ch[W_TASK_IN]].len;
	bool at_rest = !w->tasks_nr && w->out_at == w->out_len;

	if (w->exit_at <= sim.now) {
		worker_die(idx, CLD_EXITED, (int)rnd(3));
		return true;
	}
	if (w->term && !w->ignores_term && (at_rest || chance(300))) {
		worker_die(idx, CLD_EXITED, 0);
		return true;
	}
	if (eof && !w->ignores_eof && at_rest) {
		if (w->exit_at == URD_NEVER)
			w->exit_at = sim.now + sim_delay();
	}
	return false;
}

/* A chunk for which there is no credit: a misdeed. */
static bool worker_oversends(void)
{
	if (!sim.faulty || !chance(sim.o.task_fault))
		return false;
	sim.worker_faults++;
	return true;
}

static bool worker_tasks(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];

	for (u32 i = 0; i < w->tasks_nr;) {
		struct sim_task t = w->tasks[i];

		if (t.chunks && t.due <= sim.now && (t.credit || worker_oversends())) {
			worker_chunk(idx, &w->tasks[i]);
			if (!w->tasks[i].chunks && chance(500))
				w->tasks[i].due = sim.now; /* and the answer right after it */
			else
				i++;
			continue;
		}
		if (t.due > sim.now || t.chunks) {
			i++;
			continue;
		}
		/* an answer needs room for the largest there is, twice if it misbehaves */
		if (w->out_len + 2 * SIM_BLOB_MAX + 4096 > SIM_IO_BYTES)
			break;
		w->tasks[i] = w->tasks[--w->tasks_nr];
		if (!worker_answer(idx, &t))
			return false;
	}
	return true;
}

static void worker_next(u16 idx)
{
	struct sim_worker *w = &sim.worker[idx];
	u64 t = urd_min(w->exit_at, w->chat_at);

	t = urd_min(t, w->close_at);
	if (w->tasks_nr && !w->folk && !w->mute)
		t = urd_min(t, w->beat_at);
	if (!w->ready_sent && w->ready != READY_NEVER)
		t = urd_min(t, w->boot_at);
	for (u32 i = 0; i < w->tasks_nr; i++)
		if (!w->tasks[i].chunks || w->tasks[i].credit)
			t = urd_min(t, w->tasks[i].due);
	if (w->open[W_TASK_IN] && sim.chan[w->ch[W_TASK_IN]].len && w->tasks_nr < SIM_TASKS - 1)
		t = urd_min(t, sim.now + sim_delay());
	if (w->out_at < w->out_len && w->open[W_TASK_OUT] && chan_is_writable(w->ch[W_TASK_OUT]))
		t = urd_min(t, sim.now + sim_delay());
	if (w->term && !w->ignores_term)
		t = urd_min(t, sim.now + 100 * NSEC_PER_USEC);
	if (t != URD_NEVER)
		worker_wake(idx, urd_max(t, sim.now + 100));
}

void worker_step(u32 i)
{
	u16 idx = (u16)i;
	struct sim_worker *w = &sim.worker[idx];

	w->sched = URD_NEVER;
	if (!w->used || w->dead)
		return;
	if (sim.faulty && chance(sim.o.stall)) {
		sim.worker_faults++;
		w->stall_until = sim.now + rnd_log(100 * NSEC_PER_USEC, NSEC_PER_SEC);
		sim_note(NOTE_STALL, idx, w->stall_until - sim.now, 0);
	}
	if (w->stall_until > sim.now) {
		worker_wake(idx, w->stall_until);
		return;
	}
	worker_boot(idx);
	worker_chat(idx);
	worker_close(idx);
	worker_beat(idx);
	worker_read_control(idx);
	if (!worker_read_tasks(idx) || !worker_tasks(idx) || !worker_flush(idx) ||
	    worker_leaves(idx))
		return;
	worker_next(idx);
}
