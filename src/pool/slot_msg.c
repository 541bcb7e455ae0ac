// SPDX-License-Identifier: MIT
/*
 * What is said between a slot and its worker: requests out, answers and control
 * messages in, and the lines that it prints.  Nothing a worker sends is trusted:
 * what it must not send costs it its life, and nobody gets an answer that is not
 * his.
 */
#include <limits.h>
#include <msgpack.h>

#include "pool/slot_priv.h"
#include "wire/mp.h"

/* ---- out ---- */

/* Metadata for a worker that offered to read it. */
static u32 job_pack_meta(struct urd_job *job, u64 now_ns)
{
	struct urd_out out = { .p = job->meta, .cap = sizeof(job->meta) };
	u64 left_ms = (urd_max(job->exec_due_ns, now_ns) - now_ns) / NSEC_PER_MSEC;
	bool timed = job->exec_due_ns != URD_NEVER;
	bool stream = job->credit > 0;
	msgpack_packer pk;

	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_map(&pk, 1u + timed + stream + (job->trace[0] != 0));
	msgpack_pack_str_with_body(&pk, "attempt", 7);
	msgpack_pack_uint8(&pk, job->attempt);
	if (timed) {
		msgpack_pack_str_with_body(&pk, "deadline_ms", 11);
		msgpack_pack_uint64(&pk, left_ms);
	}
	if (stream) {
		msgpack_pack_str_with_body(&pk, "stream", 6);
		msgpack_pack_true(&pk);
	}
	if (job->trace[0]) {
		msgpack_pack_str_with_body(&pk, "traceparent", 11);
		msgpack_pack_str_with_body(&pk, job->trace, strlen(job->trace));
	}
	urd_assert(!out.full);
	return out.len;
}

void slot_begin(struct urd_slot *slot, struct urd_job *job)
{
	job->meta_len = slot->can_meta ? job_pack_meta(job, slot->core->now_ns) : 0;
	/* it can be done without, the request can't */
	if (job->params_len + job->method.len + SLOT_ENVELOPE_MAX + job->meta_len > URD_REQUEST_MAX)
		job->meta_len = 0;
	job->frame = urd_rpc_put_request(job->params, job->params_len + job->meta_len, job->msgid,
					 job->method, job->meta_len != 0);
	job->frame_len = (u32)(job->params + job->params_len - job->frame);
	urd_assert(job->frame >= job->req.p);
	/* the name has moved with the envelope; a second attempt needs it again */
	job->method.p = job->params - job->method.len;
}

/* One control message about a request, framed. Returns false if it does not fit. */
static bool pack_control(struct urd_out *out, const char *method, const struct urd_job *job, u32 n)
{
	u32 at = out->len;
	msgpack_packer pk;

	if (out->cap - at < 64)
		return false;
	out->len += URD_FRAME_HEADER;
	msgpack_packer_init(&pk, out, urd_out_write);
	msgpack_pack_array(&pk, 3);
	msgpack_pack_uint8(&pk, URD_TAG_NOTIFY);
	msgpack_pack_str_with_body(&pk, method, strlen(method));
	msgpack_pack_array(&pk, n ? 2 : 1);
	msgpack_pack_uint32(&pk, job->msgid);
	if (n)
		msgpack_pack_uint32(&pk, n);
	urd_assert(!out->full);
	put_be32(out->p + at, out->len - at - URD_FRAME_HEADER);
	return true;
}

u32 slot_pack_control(struct urd_slot *slot)
{
	struct urd_out out = { .p = slot->ctl_buf, .cap = sizeof(slot->ctl_buf) };
	struct urd_job *job;

	urd_list_for_each(job, &slot->jobs, node) {
		if (!job->frame || job == slot->writing)
			continue; /* it must know of the request first */
		if (job->tell_cancel && pack_control(&out, "control.cancel", job, 0))
			job->tell_cancel = false;
		if (job->credit_due && pack_control(&out, "control.credit", job, job->credit_due))
			job->credit_due = 0;
	}
	return out.len;
}

/* ---- in: the task stream ---- */

void slot_bad(struct urd_slot *slot, const char *what)
{
	struct urd_tags tags = slot_tags(slot);

	if (slot->state != SLOT_KILLING)
		pr_warn(slot->core->log, &tags, "protocol: %s", what);
	slot_because(slot, URD_WHY_PROTOCOL);
	slot_step(slot, SEV_BAD, NULL);
}

static struct urd_job *slot_job(struct urd_slot *slot, u32 msgid)
{
	struct urd_job *job;

	urd_list_for_each(job, &slot->jobs, node)
		if (job->msgid == msgid && job->frame && !job->early)
			return job;
	return NULL;
}

/* The answer is here: a request that is written in one piece has gone out before it. */
static void slot_confirm(struct urd_slot *slot)
{
	struct urd_op *op = &slot->ops[SLOT_OP_TASK_WR];
	struct urd_job *job = slot->writing;

	if (op->state != URD_OP_INLINE || op->is_sock || op->bytes > PIPE_BUF)
		return;
	urd_op_confirm(slot->core->ring, op);
	job->sent = job->frame_len + job->meta_len;
	slot->writing = NULL;
	slot_write_next(slot);
	urd_slot_tell(slot);
}

static void slot_answer(struct urd_slot *slot, struct urd_frame *f, const struct urd_msg *msg)
{
	struct urd_job *job = slot_job(slot, msg->msgid);
	struct slot_what what = { .job = job, .frame = f, .msg = msg };

	if (!job) {
		slot_bad(slot, "an answer to no request of its own");
		return;
	}
	slot->beat_ns = slot->core->now_ns;
	slot_step(slot, job->overdue ? SEV_LATE : SEV_ANSWER, &what);
	if (job == slot->writing)
		slot_confirm(slot);
	if (job == slot->writing && !urd_op_is_idle(&slot->ops[SLOT_OP_TASK_WR]))
		job->early = true; /* answered before it has read all; the rest must go out still */
	else
		slot_forget(slot, job);
	urd_pool_served(slot);
	slot_settled(slot);
}

/* Give something to a job's caller ahead of the answer. Takes over f->buf. */
static bool slot_pass(struct urd_slot *slot, struct urd_job *job, enum urd_chunk_kind kind,
		      struct urd_frame *f, struct urd_span data)
{
	struct urd_chunk *chunk = urd_chunk_get(slot->core, job, kind);

	if (!chunk)
		return false;
	chunk->buf = f->buf;
	f->buf.p = NULL;
	chunk->data = f->p + (data.p - f->p);
	chunk->len = data.len;
	return true;
}

static void slot_chunk(struct urd_slot *slot, struct urd_frame *f, const struct urd_msg *msg)
{
	struct urd_job *job = slot_job(slot, msg->msgid);

	slot->beat_ns = slot->core->now_ns;
	if (job && job->overdue) {
		slot->pool->stats.late++;
		return;
	}
	if (!job || !job->credit) {
		slot_bad(slot, job ? "a chunk for which it had no credit" :
				     "a chunk of no request of its own");
		return;
	}
	job->credit--;
	job->gap_ns = slot->core->now_ns;
	/* slot_task_frames() has made sure that there is one free */
	urd_assert(slot_pass(slot, job, URD_CHUNK_DATA, f, msg->params));
}

static void slot_task_frame(struct urd_slot *slot, struct urd_frame *f)
{
	struct urd_msg msg;

	if (slot->state == SLOT_STOPPING) {
		slot_bad(slot, "an answer to nothing");
		return;
	}
	if (urd_rpc_parse(f->p, f->len, &msg)) {
		slot_bad(slot, "a frame that is no message");
		return;
	}
	switch (msg.tag) {
	case URD_TAG_RESPONSE:
		slot_answer(slot, f, &msg);
		break;
	case URD_TAG_NOTIFY:
		break; /* tolerated, and of no meaning here */
	case URD_TAG_REQUEST:
		slot_bad(slot, "a request where an answer belongs");
		break;
	case URD_TAG_CHUNK:
		slot_chunk(slot, f, &msg);
		break;
	}
}

/* May its next frame be a chunk that is passed on? */
static bool slot_may_chunk(const struct urd_slot *slot)
{
	const struct urd_job *job;

	urd_list_for_each(job, &slot->jobs, node)
		if (job->credit && !job->overdue)
			return true;
	return false;
}

void slot_task_frames(struct urd_slot *slot)
{
	struct urd_frame f;
	int ret = 0;

	slot->parsing = true;
	while (slot->state >= SLOT_BUSY && slot->state < SLOT_TERMING) {
		if (urd_list_empty(&slot->core->chunks_free) && slot_may_chunk(slot)) {
			slot_starve(slot); /* the frame may be a chunk */
			break;
		}
		ret = urd_inbox_next(&slot->task, &f);
		if (ret != 1)
			break;
		slot_task_frame(slot, &f);
		urd_arena_put(&slot->core->arena, &f.buf);
	}
	if (slot->state >= SLOT_TERMING)
		urd_inbox_reset(&slot->task); /* nobody listens any more */
	slot->parsing = false;
	if (ret == -ENOMEM)
		slot_starve(slot);
	else if (ret == -EMSGSIZE)
		slot_bad(slot, "a frame larger than max_response");
	else if (ret < 0)
		slot_bad(slot, "bytes that are no frame");
	else if (slot->state == SLOT_IDLE && !urd_inbox_is_clean(&slot->task))
		slot_bad(slot, "bytes beyond its answer");
}

/* ---- in: the control channel ---- */

static void slot_features(struct urd_slot *slot, struct urd_mp m)
{
	struct urd_span s;
	u32 n;

	if (urd_mp_array(&m, &n))
		return;
	while (n-- && !urd_mp_str(&m, &s)) {
		slot->can_meta |= urd_span_is(s, "meta");
		slot->can_cancel |= urd_span_is(s, "cancel");
		slot->can_stream |= urd_span_is(s, "stream");
	}
}

/* Returns what is wrong with the ready message, or NULL. */
static const char *slot_read_ready(struct urd_slot *slot, struct urd_span params)
{
	struct urd_mp map = { params.p, params.p + params.len };
	struct urd_tags tags = slot_tags(slot);
	bool native = slot->pool->conf.protocol == URD_PROTOCOL_URD;
	struct urd_mp v;
	u64 n;

	if (urd_mp_find(&map, "pid", &v) || urd_mp_uint(&v, &n))
		return "the ready message has no pid";
	if (n != (u64)slot->child.pid)
		pr_info(slot->core->log, &tags, "the ready message says pid %llu",
			(unsigned long long)n);
	if (!native)
		return NULL;
	if (urd_mp_find(&map, "protocol", &v) || urd_mp_uint(&v, &n))
		return "the ready message has no protocol version";
	if (n != URD_PROTOCOL_VERSION)
		return "the ready message is of another protocol version than 1";
	if (!urd_mp_find(&map, "concurrency", &v)) {
		if (urd_mp_uint(&v, &n) || n < 1)
			return "the ready message has a concurrency that is no positive number";
		slot->concurrency = (u32)urd_min(n, (u64)SLOT_CONCURRENCY_MAX);
	}
	if (!urd_mp_find(&map, "features", &v))
		slot_features(slot, v);
	return NULL;
}

static void slot_ready(struct urd_slot *slot, struct urd_span params)
{
	struct urd_tags tags = slot_tags(slot);
	const char *wrong;

	if (slot->state != SLOT_BOOTING) {
		if (slot->state < SLOT_STOPPING)
			slot_bad(slot, "a second ready message");
		return;
	}
	wrong = slot_read_ready(slot, params);
	if (wrong) {
		slot_bad(slot, wrong);
		return;
	}
	slot->due_ns = URD_NEVER;
	slot_step(slot, SEV_READY, NULL);
	pr_info(slot->core->log, &tags, "worker ready after %llu ms",
		(unsigned long long)((slot->core->now_ns - slot->born_ns) / NSEC_PER_MSEC));
}

/* [msgid, value]: how far a request has come, for whoever asked to hear of it */
static void slot_progress(struct urd_slot *slot, struct urd_frame *f, struct urd_span params)
{
	struct urd_mp m = { params.p, params.p + params.len };
	struct urd_span value;
	struct urd_job *job;
	u64 msgid;
	u32 n;

	slot->beat_ns = slot->core->now_ns;
	if (urd_mp_array(&m, &n) || n != 2 || urd_mp_uint(&m, &msgid) || urd_mp_value(&m, &value))
		return;
	job = msgid <= UINT32_MAX ? slot_job(slot, (u32)msgid) : NULL;
	if (job && job->progress && !job->overdue)
		(void)slot_pass(slot, job, URD_CHUNK_PROGRESS, f, value); /* or is lost */
}

static void slot_control_frame(struct urd_slot *slot, struct urd_frame *f)
{
	struct urd_msg msg;
	int ret = urd_rpc_parse(f->p, f->len, &msg);

	if (ret == 0 && msg.tag == URD_TAG_NOTIFY && urd_span_is(msg.method, "control.ready")) {
		slot_ready(slot, msg.params);
	} else if (slot->state == SLOT_BOOTING) {
		slot_bad(slot, "something else than the ready message came first");
	} else if (ret || msg.tag != URD_TAG_NOTIFY) {
		slot_bad(slot, "a control frame that is no notification");
	} else if (urd_span_is(msg.method, "control.retire")) {
		if (slot->state <= SLOT_GRACE)
			urd_pool_leave(slot, URD_WHY_ASKED);
	} else if (urd_span_is(msg.method, "control.heartbeat")) {
		slot->beat_ns = slot->core->now_ns;
	} else if (urd_span_is(msg.method, "control.progress")) {
		slot_progress(slot, f, msg.params);
	}
	/* what a later version may say is read and dropped */
}

void slot_control_frames(struct urd_slot *slot)
{
	struct urd_frame f;
	int ret = 0;

	while (slot->state >= SLOT_BOOTING && slot->state <= SLOT_TERMING) {
		ret = urd_inbox_next(&slot->ctl, &f);
		if (ret != 1)
			break;
		slot_control_frame(slot, &f);
		urd_arena_put(&slot->core->arena, &f.buf);
	}
	if (ret == -ENOMEM)
		slot_starve(slot);
	else if (ret < 0)
		slot_bad(slot, "bytes on the control channel that are no frame");
}

/* ---- what it prints ---- */

/* Keep the end of what it wrote, for whoever will ask why it died. */
static void slot_keep(struct urd_slot *slot, const char *p, u32 len)
{
	u32 room = URD_SLOT_TAIL - 1, keep;

	if (len > room) {
		p += len - room;
		len = room;
	}
	keep = urd_min(slot->tail_len, room - len);
	memmove(slot->tail, slot->tail + slot->tail_len - keep, keep);
	memcpy(slot->tail + keep, p, len);
	slot->tail[keep + len] = '\n';
	slot->tail_len = keep + len + 1;
}

static void slot_line(struct urd_slot *slot, const char *p, u32 len, const char *stream)
{
	struct urd_tags tags = slot_tags(slot);

	tags.stream = stream;
	if (stream[3] == 'e')
		slot_keep(slot, p, len);
	pr_info(slot->core->log, &tags, "%.*s", (int)len, p);
}

void slot_lines(struct urd_slot *slot, struct urd_lines *l, u32 n, const char *stream)
{
	u32 begin = 0, end = l->len + n;

	for (u32 i = l->len; i < end; i++) {
		if (l->buf[i] != '\n')
			continue;
		if (!l->cut && i > begin)
			slot_line(slot, l->buf + begin, i - begin, stream);
		l->cut = false;
		begin = i + 1;
	}
	if (l->cut)
		begin = end;
	l->len = end - begin;
	memmove(l->buf, l->buf + begin, l->len);
	if (l->len == slot->core->line_max) {
		slot_line(slot, l->buf, l->len, stream);
		l->len = 0;
		l->cut = true;
	}
}

void slot_lines_end(struct urd_slot *slot, struct urd_lines *l, const char *stream)
{
	if (l->len)
		slot_line(slot, l->buf, l->len, stream);
	l->len = 0;
	l->cut = false;
}
