// SPDX-License-Identifier: MIT
/*
 * The client side of docs/client-protocol.md in C.  Requests are packed into
 * one buffer, answers are read in place from another.  Nothing the daemon sends
 * is trusted: an answer or a chunk that is malformed or that nobody asked for ends
 * the connection.  A client belongs to one thread at a time.
 */
#include "sdk/client_impl.h"

#include <msgpack/pack.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "wire/mp.h"
#include "wire/rpc.h"

/* What a frame needs beside method, params and traceparent, bytes at most. */
#define ENVELOPE_MAX 96u

URD_API int urd_client_open(const char *address, struct urd_client **client)
{
	struct urd_client *c;
	int ret;

	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	urd_list_init(&c->kept);
	ret = urd_client_connect(address, &c->fd);
	if (ret) {
		free(c);
		return ret;
	}
	*client = c;
	return 0;
}

URD_API void urd_client_close(struct urd_client *client)
{
	struct urd_list *n;

	if (!client)
		return;
	while ((n = urd_list_pop(&client->kept)))
		free(urd_list_entry(n, struct urd_kept, node));
	free(client->current);
	free(client->slots);
	urd_stream_fini(&client->tx);
	urd_stream_fini(&client->rx);
	close(client->fd);
	free(client);
}

URD_API int urd_client_fd(const struct urd_client *client)
{
	return client->fd;
}

URD_API short urd_client_events(const struct urd_client *client)
{
	if (urd_stream_len(&client->tx) && !client->tx_broken)
		return POLLIN | POLLOUT;
	return POLLIN;
}

static int slot_get(struct urd_client *c, struct urd_slot **slot)
{
	struct urd_slot *slots;
	u32 cap;

	if (c->free_slot == c->slots_nr) {
		if (c->slots_nr == INDEX_MASK)
			return -ENOBUFS;
		if (c->slots_nr == c->slots_cap) {
			cap = urd_max(16u, c->slots_cap * 2);
			slots = realloc(c->slots, cap * sizeof(*slots));
			if (!slots)
				return -ENOMEM;
			c->slots = slots;
			c->slots_cap = cap;
		}
		c->slots[c->slots_nr] = (struct urd_slot){
			.msgid = c->slots_nr,
			.next_free = c->slots_nr + 1,
		};
		c->slots_nr++;
	}
	*slot = &c->slots[c->free_slot];
	c->free_slot = (*slot)->next_free;
	(*slot)->want = WANT_ANSWER;
	(*slot)->taken = 0;
	return 0;
}

static void slot_put(struct urd_client *c, struct urd_slot *slot)
{
	slot->want = WANT_FREE;
	slot->next_free = c->free_slot;
	c->free_slot = slot->msgid & INDEX_MASK;
	slot->msgid += 1u << INDEX_BITS; /* another generation: a late answer is recognised */
}

struct urd_slot *urd_client_slot(struct urd_client *c, u32 msgid)
{
	u32 i = msgid & INDEX_MASK;

	if (i >= c->slots_nr || c->slots[i].msgid != msgid || c->slots[i].want == WANT_FREE)
		return NULL;
	return &c->slots[i];
}

static void pack_text(msgpack_packer *pk, const char *s, size_t len)
{
	msgpack_pack_str(pk, len);
	msgpack_pack_str_body(pk, s, len);
}

static void meta_pack(msgpack_packer *pk, const struct urd_client_opts *opts)
{
	u32 keys = !!opts->deadline_ms + !!opts->traceparent + opts->stream + opts->progress;

	msgpack_pack_map(pk, keys);
	if (opts->deadline_ms) {
		pack_text(pk, "deadline_ms", 11);
		msgpack_pack_uint32(pk, opts->deadline_ms);
	}
	if (opts->traceparent) {
		pack_text(pk, "traceparent", 11);
		pack_text(pk, opts->traceparent, strlen(opts->traceparent));
	}
	if (opts->stream) {
		pack_text(pk, "stream", 6);
		msgpack_pack_true(pk);
	}
	if (opts->progress) {
		pack_text(pk, "progress", 8);
		msgpack_pack_true(pk);
	}
}

/* Append a frame that @pack has written to @out, which is the tail of the tx stream. */
static int frame_commit(struct urd_client *c, struct urd_out *out)
{
	struct urd_msg m;
	u32 len = out->len - URD_FRAME_HEADER;

	urd_assert(!out->full);
	if (len > URD_REQUEST_MAX)
		return -EMSGSIZE;
	/* The daemon's own parser is the judge of what the caller gave. */
	if (urd_rpc_parse(out->p + URD_FRAME_HEADER, len, &m))
		return -EINVAL;
	put_be32(out->p, len);
	c->tx.tail += out->len;
	return 0;
}

/*
 * Make room for a frame of at most @need bytes behind what waits.  The limit is for
 * requests: a stream whose credit is not sent would stand still for ever.
 */
static int frame_begin(struct urd_client *c, size_t need, struct urd_out *out)
{
	int ret;

	if (c->broken || c->tx_broken)
		return -EPIPE;
	if (need > ENVELOPE_MAX && urd_stream_len(&c->tx) + need > TX_MAX)
		return -ENOBUFS;
	ret = urd_stream_room(&c->tx, need);
	if (ret)
		return ret;
	*out = (struct urd_out){
		.p = c->tx.p + c->tx.tail,
		.len = URD_FRAME_HEADER,
		.cap = (u32)need,
	};
	return 0;
}

URD_API int urd_client_send(struct urd_client *client, const char *method, const void *params,
			    size_t params_len, const struct urd_client_opts *opts, uint32_t *msgid)
{
	bool meta = opts &&
		    (opts->deadline_ms || opts->traceparent || opts->stream || opts->progress);
	size_t method_len = strlen(method);
	size_t trace_len = meta && opts->traceparent ? strlen(opts->traceparent) : 0;
	struct urd_slot *slot;
	struct urd_out out;
	msgpack_packer pk;
	int ret;

	if (params_len > URD_REQUEST_MAX || method_len > URD_METHOD_MAX ||
	    trace_len > URD_REQUEST_MAX)
		return -EMSGSIZE;
	ret = frame_begin(client, method_len + params_len + trace_len + ENVELOPE_MAX, &out);
	if (ret)
		return ret;
	ret = slot_get(client, &slot);
	if (ret)
		return ret;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_array(&pk, meta ? 5 : 4);
	msgpack_pack_uint8(&pk, URD_TAG_REQUEST);
	msgpack_pack_uint32(&pk, slot->msgid);
	pack_text(&pk, method, method_len);
	urd_out_write(&out, params, params_len);
	if (meta)
		meta_pack(&pk, opts);
	ret = frame_commit(client, &out);
	if (ret) {
		slot_put(client, slot);
		return ret;
	}
	slot->stream = opts && opts->stream;
	slot->progress = opts && opts->progress;
	slot->manual = opts && opts->manual_credit;
	*msgid = slot->msgid;
	return 0;
}

/* Queue a notification about a request, with a second number if @n is not 0. */
static int notify(struct urd_client *c, const char *method, u32 msgid, u32 n)
{
	struct urd_out out;
	msgpack_packer pk;
	int ret;

	ret = frame_begin(c, ENVELOPE_MAX, &out);
	if (ret)
		return ret;
	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_array(&pk, 3);
	msgpack_pack_uint8(&pk, URD_TAG_NOTIFY);
	pack_text(&pk, method, strlen(method));
	msgpack_pack_array(&pk, n ? 2 : 1);
	msgpack_pack_uint32(&pk, msgid);
	if (n)
		msgpack_pack_uint32(&pk, n);
	return frame_commit(c, &out);
}

URD_API int urd_client_cancel(struct urd_client *client, uint32_t msgid)
{
	return urd_client_slot(client, msgid) ? notify(client, "urd.cancel", msgid, 0) : -ENOENT;
}

URD_API int urd_client_grant(struct urd_client *client, uint32_t msgid, uint32_t n)
{
	struct urd_slot *slot = urd_client_slot(client, msgid);

	if (!slot || !slot->stream)
		return -ENOENT;
	return n ? notify(client, "urd.credit", msgid, n) : 0;
}

void urd_client_taken(struct urd_client *c, u32 msgid)
{
	struct urd_slot *slot = urd_client_slot(c, msgid);

	if (!slot || slot->manual || ++slot->taken < STREAM_CREDIT / 2)
		return;
	if (!notify(c, "urd.credit", msgid, slot->taken))
		slot->taken = 0;
}

static enum urd_executed executed_parse(struct urd_mp *error)
{
	struct urd_span s;
	struct urd_mp v;

	if (urd_mp_find(error, "executed", &v) || urd_mp_str(&v, &s))
		return URD_EXECUTED_MAYBE;
	if (urd_span_is(s, "no"))
		return URD_EXECUTED_NO;
	return urd_span_is(s, "yes") ? URD_EXECUTED_YES : URD_EXECUTED_MAYBE;
}

static void answer_fill(struct urd_client *c, const struct urd_msg *m, struct urd_answer *a)
{
	struct urd_mp mp = { m->error.p, m->error.p + m->error.len };
	struct urd_span text;
	size_t len;
	s64 code;

	c->text[0] = '\0';
	*a = (struct urd_answer){
		.kind = URD_KIND_ANSWER,
		.msgid = m->msgid,
		.code = URD_OK,
		.executed = URD_EXECUTED_YES,
		.message = c->text,
		.result = m->params.p,
		.result_len = m->params.len,
	};
	if (!m->failed)
		return;
	urd_fail_parse(m->error, &code, &text);
	/* A failure without a number of ours must not look like a success. */
	a->code = code > 0 && code <= INT32_MAX ? (enum urd_code)code : URD_IO;
	a->executed = executed_parse(&mp);
	a->result = m->error.p;
	a->result_len = m->error.len;
	len = urd_min((size_t)text.len, sizeof(c->text) - 1);
	if (len < text.len) {
		while (len && (text.p[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(c->text, text.p, len);
	c->text[len] = '\0';
}

static void part_fill(struct urd_client *c, enum urd_kind kind, u32 msgid, struct urd_span value,
		      struct urd_answer *a)
{
	c->text[0] = '\0';
	*a = (struct urd_answer){
		.kind = kind,
		.msgid = msgid,
		.code = URD_OK,
		.executed = URD_EXECUTED_MAYBE,
		.message = c->text,
		.result = value.p,
		.result_len = value.len,
	};
}

static int chunk_take(struct urd_client *c, const struct urd_msg *m, struct urd_answer *a)
{
	struct urd_slot *slot = urd_client_slot(c, m->msgid);

	if (!slot || !slot->stream)
		return -EBADMSG;
	part_fill(c, URD_KIND_CHUNK, m->msgid, m->params, a);
	return slot->want == WANT_ANSWER;
}

/* [msgid, value] of urd.progress */
static int progress_read(const struct urd_msg *m, u32 *msgid, struct urd_span *value)
{
	struct urd_mp mp = { m->params.p, m->params.p + m->params.len };
	u64 number;
	u32 n;

	if (urd_mp_array(&mp, &n) || n != 2 || urd_mp_uint(&mp, &number) || number > UINT32_MAX ||
	    urd_mp_value(&mp, value))
		return -EBADMSG;
	*msgid = (u32)number;
	return 0;
}

static int notify_take(struct urd_client *c, const struct urd_msg *m, struct urd_answer *a)
{
	struct urd_slot *slot;
	struct urd_span value;
	u32 msgid;

	if (!urd_span_is(m->method, "urd.progress"))
		return 0;
	if (progress_read(m, &msgid, &value))
		return -EBADMSG;
	slot = urd_client_slot(c, msgid);
	if (!slot || !slot->progress)
		return 0;
	part_fill(c, URD_KIND_PROGRESS, msgid, value, a);
	return slot->want == WANT_ANSWER;
}

/*
 * Look at one frame.  Return: 1 it is an answer or a part that somebody waits for
 * and @a is filled in; 0 it is of no interest; -EBADMSG.
 */
static int frame_take(struct urd_client *c, struct urd_span frame, struct urd_answer *a)
{
	struct urd_slot *slot;
	enum urd_want want;
	struct urd_msg m;

	if (urd_rpc_parse(frame.p, frame.len, &m))
		return -EBADMSG;
	if (m.tag == URD_TAG_NOTIFY)
		return notify_take(c, &m, a);
	if (m.tag == URD_TAG_CHUNK)
		return chunk_take(c, &m, a);
	if (m.tag != URD_TAG_RESPONSE)
		return -EBADMSG;
	slot = urd_client_slot(c, m.msgid);
	if (!slot)
		return -EBADMSG;
	want = slot->want;
	slot_put(c, slot);
	if (want == WANT_DROP)
		return 0;
	answer_fill(c, &m, a);
	return 1;
}

int urd_client_read(struct urd_client *c, struct urd_answer *a, struct urd_span *frame)
{
	ssize_t n;
	int ret;

	if (c->broken)
		return c->broken;
	for (;;) {
		while ((ret = urd_stream_next(&c->rx, ANSWER_MAX, frame)) > 0) {
			ret = frame_take(c, *frame, a);
			if (ret > 0)
				return 1;
			if (ret < 0)
				break;
		}
		if (ret < 0)
			break;
		urd_stream_trim(&c->rx);
		n = urd_stream_read(&c->rx, c->fd);
		if (n == -EAGAIN)
			return 0;
		if (n <= 0) {
			ret = n == 0 || n == -ECONNRESET ? -EPIPE : (int)n;
			break;
		}
	}
	c->broken = ret;
	return ret;
}

/* The oldest of what was kept.  It parsed when it was put there. */
static int kept_take(struct urd_client *c, struct urd_kept *k, struct urd_answer *a)
{
	struct urd_span value;
	struct urd_msg m;
	u32 msgid;

	c->current = k;
	if (urd_rpc_parse(k->frame, k->len, &m))
		return -EBADMSG;
	if (m.tag == URD_TAG_CHUNK) {
		part_fill(c, URD_KIND_CHUNK, m.msgid, m.params, a);
	} else if (m.tag == URD_TAG_NOTIFY) {
		if (progress_read(&m, &msgid, &value))
			return -EBADMSG;
		part_fill(c, URD_KIND_PROGRESS, msgid, value, a);
	} else {
		answer_fill(c, &m, a);
	}
	return 1;
}

URD_API int urd_client_turn(struct urd_client *client, struct urd_answer *answer)
{
	struct urd_span frame;
	struct urd_list *n;
	int ret;

	free(client->current);
	client->current = NULL;
	urd_client_flush(client);
	n = urd_list_pop(&client->kept);
	if (n)
		ret = kept_take(client, urd_list_entry(n, struct urd_kept, node), answer);
	else
		ret = urd_client_read(client, answer, &frame);
	if (ret > 0 && answer->kind == URD_KIND_CHUNK)
		urd_client_taken(client, answer->msgid);
	return ret;
}
