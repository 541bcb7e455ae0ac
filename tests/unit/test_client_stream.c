// SPDX-License-Identifier: MIT
/*
 * What comes to the C client before an answer: chunks, the credit for more of
 * them, and progress; against a daemon that is played byte by byte.
 */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/client_peer.h"
#include "wire/mp.h"

/* Send a chunk of @msgid: the number @n, less than 128. */
static void chunk_put(u32 msgid, u8 n)
{
	u8 bytes[] = { 0, 0, 0, 8, 0x93, 3, 0xce, 0, 0, 0, 0, n };

	put_be32(bytes + 7, msgid);
	peer_write(bytes, sizeof(bytes));
}

static void progress_put(u32 msgid, u8 n)
{
	u8 bytes[] = "\0\0\0\x16\x93\x02\xac"
		     "urd.progress"
		     "\x92\xce....";

	put_be32(bytes + sizeof(bytes) - 5, msgid);
	peer_write(bytes, sizeof(bytes) - 1);
	peer_write(&n, 1);
}

static u32 send_with(struct urd_client_opts opts)
{
	struct urd_answer a;
	u32 msgid;

	cr_assert_eq(urd_client_send(client, "m", "\x01", 1, &opts, &msgid), 0);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	return msgid;
}

/* The next frame to the daemon grants @n for @msgid. */
static void credit_get(u32 msgid, u64 n)
{
	struct urd_msg m = frame_get();
	struct urd_mp mp = { m.params.p, m.params.p + m.params.len };
	u64 got;
	u32 len;

	cr_assert_eq(m.tag, URD_TAG_NOTIFY);
	cr_assert(urd_span_is(m.method, "urd.credit"));
	cr_assert(!urd_mp_array(&mp, &len) && len == 2);
	cr_assert(!urd_mp_uint(&mp, &got) && got == msgid);
	cr_assert(!urd_mp_uint(&mp, &got) && got == n, "%llu", (unsigned long long)got);
}

static bool peer_is_quiet(void)
{
	struct pollfd p = { .fd = peer, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

static void part_expect(enum urd_kind kind, u32 msgid, u8 value)
{
	struct urd_answer a;

	cr_assert_eq(urd_client_turn(client, &a), 1);
	cr_assert_eq(a.kind, kind);
	cr_assert_eq(a.msgid, msgid);
	cr_assert(a.result_len == 1 && *(const u8 *)a.result == value);
	cr_assert_eq(a.code, URD_OK);
	cr_assert_str_eq(a.message, "");
}

Test(client_stream, parts_are_asked_for)
{
	const struct urd_client_opts opts = { .stream = true, .progress = true };
	struct urd_msg m;
	struct urd_mp map;
	struct urd_mp v;
	bool b;

	client_open();
	send_with(opts);
	m = frame_get();
	map = (struct urd_mp){ m.meta.p, m.meta.p + m.meta.len };
	cr_assert(!urd_mp_find(&map, "stream", &v) && !urd_mp_bool(&v, &b) && b);
	cr_assert(!urd_mp_find(&map, "progress", &v) && !urd_mp_bool(&v, &b) && b);
	send_with((struct urd_client_opts){ .progress = true });
	m = frame_get();
	map = (struct urd_mp){ m.meta.p, m.meta.p + m.meta.len };
	cr_assert_eq(m.meta.p[0], 0x81);
	cr_assert_neq(urd_mp_find(&map, "stream", &v), 0);
	client_shut();
}

Test(client_stream, chunks_make_room_for_chunks)
{
	struct urd_answer a;
	u32 id[2];
	u8 i;

	client_open();
	id[0] = send_with((struct urd_client_opts){ .stream = true });
	id[1] = send_with((struct urd_client_opts){ .stream = true });
	frame_get();
	frame_get();
	for (i = 0; i < 8; i++) {
		cr_assert_eq(urd_client_turn(client, &a), 0);
		cr_assert(peer_is_quiet(), "chunk %u", i);
		chunk_put(id[0], i);
		if (i < 3)
			chunk_put(id[1], i);
		part_expect(URD_KIND_CHUNK, id[0], i);
		if (i < 3)
			part_expect(URD_KIND_CHUNK, id[1], i);
	}
	cr_assert_eq(urd_client_turn(client, &a), 0);
	credit_get(id[0], 8);
	cr_assert(peer_is_quiet(), "nothing for the other stream yet");
	ANSWER(id[0], "\xc0\x05");
	part_expect(URD_KIND_ANSWER, id[0], 5);
	for (; i < 13; i++) {
		chunk_put(id[1], i);
		part_expect(URD_KIND_CHUNK, id[1], i);
	}
	cr_assert_eq(urd_client_turn(client, &a), 0);
	credit_get(id[1], 8);
	client_shut();
}

Test(client_stream, credit_by_hand)
{
	struct urd_answer a;
	u32 plain;
	u32 msgid;
	u8 i;

	client_open();
	msgid = send_with((struct urd_client_opts){ .stream = true, .manual_credit = true });
	plain = send_one("m");
	frame_get();
	frame_get();
	for (i = 0; i < 16; i++) {
		chunk_put(msgid, i);
		part_expect(URD_KIND_CHUNK, msgid, i);
	}
	cr_assert_eq(urd_client_turn(client, &a), 0);
	cr_assert(peer_is_quiet());
	cr_assert_eq(urd_client_grant(client, msgid, 0), 0);
	cr_assert_eq(urd_client_grant(client, msgid, 300), 0);
	cr_assert_eq(urd_client_grant(client, plain, 1), -ENOENT, "no stream");
	cr_assert_eq(urd_client_grant(client, msgid + 7, 1), -ENOENT);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	credit_get(msgid, 300);
	cr_assert(peer_is_quiet());
	ANSWER(msgid, "\xc0\x01");
	part_expect(URD_KIND_ANSWER, msgid, 1);
	cr_assert_eq(urd_client_grant(client, msgid, 1), -ENOENT, "it is over");
	client_shut();
}

Test(client_stream, credit_goes_out_past_the_limit_of_requests)
{
	u8 *params = calloc(1, URD_REQUEST_MAX);
	u32 msgid;
	u32 id;

	client_open();
	msgid = send_with((struct urd_client_opts){ .stream = true });
	params[0] = 0xc6;
	put_be32(params + 1, URD_REQUEST_MAX - 128);
	while (!urd_client_send(client, "m", params, URD_REQUEST_MAX - 123, NULL, &id))
		;
	while (!urd_client_send(client, "m", params, 1, NULL, &id))
		;
	cr_assert_eq(urd_client_grant(client, msgid, 1), 0);
	cr_assert_eq(urd_client_cancel(client, msgid), 0);
	client_shut();
	free(params);
}

Test(client_stream, progress)
{
	struct urd_answer a;
	u32 plain;
	u32 msgid;

	client_open();
	msgid = send_with((struct urd_client_opts){ .progress = true });
	plain = send_one("m");
	progress_put(msgid, 30);
	progress_put(plain, 40);
	progress_put(99, 50);
	progress_put(msgid, 60);
	part_expect(URD_KIND_PROGRESS, msgid, 30);
	part_expect(URD_KIND_PROGRESS, msgid, 60);
	cr_assert_eq(urd_client_turn(client, &a), 0, "not asked for, or of nobody");
	peer_write("\0\0\0\x10\x93\x02\xac"
		   "urd.progress\x07",
		   20);
	cr_assert_eq(urd_client_turn(client, &a), -EBADMSG);
	client_shut();
}

Test(client_stream, a_chunk_that_nobody_asked_for)
{
	struct urd_answer a;
	u32 msgid;

	client_open();
	msgid = send_with((struct urd_client_opts){ .progress = true });
	chunk_put(msgid, 1);
	cr_assert_eq(urd_client_turn(client, &a), -EBADMSG);
	client_shut();
	client_open();
	msgid = send_with((struct urd_client_opts){ .stream = true });
	ANSWER(msgid, "\xc0\x01");
	part_expect(URD_KIND_ANSWER, msgid, 1);
	chunk_put(msgid, 1);
	cr_assert_eq(urd_client_turn(client, &a), -EBADMSG, "after the answer");
	client_shut();
}

/* Sends as it has credit: chunks of a call's stream between those of another. */
static void *stream_two(void *arg)
{
	const u32 *other = arg;
	u32 called;
	u8 i;

	frame_get();
	called = frame_get().msgid;
	progress_put(called, 77);
	for (i = 0; i < 40; i++) {
		if (i >= 16 && i % 8 == 0)
			credit_get(called, 8);
		chunk_put(called, i);
		if (i < 16)
			chunk_put(*other, i);
	}
	ANSWER(called, "\xc0\x03");
	return NULL;
}

struct parts {
	u8 next;
	u8 stop; /* give up at this one */
	int progress;
};

static int part_check(const struct urd_answer *part, void *arg)
{
	struct parts *p = arg;
	const u8 *value = part->result;

	if (part->kind == URD_KIND_PROGRESS) {
		p->progress += *value;
		return 0;
	}
	cr_assert_eq(part->kind, URD_KIND_CHUNK);
	cr_assert_eq(*value, p->next);
	return p->next++ == p->stop ? -ECANCELED : 0;
}

Test(client_stream, stream)
{
	const struct urd_client_opts opts = { .progress = true };
	struct parts parts = { .stop = 255 };
	struct urd_answer a;
	pthread_t thread;
	u32 other;
	u8 i;

	client_open();
	other = send_with((struct urd_client_opts){ .stream = true });
	cr_assert_eq(pthread_create(&thread, NULL, stream_two, &other), 0);
	cr_assert_eq(urd_client_stream(client, "m", "\x01", 1, &opts, part_check, &parts, &a), 0);
	cr_assert_eq(a.kind, URD_KIND_ANSWER);
	cr_assert_eq(*(const u8 *)a.result, 3);
	cr_assert_eq(parts.next, 40);
	cr_assert_eq(parts.progress, 77);
	pthread_join(thread, NULL);
	/* chunks that came meanwhile were kept, and nothing was granted for them */
	credit_get(a.msgid, 8);
	credit_get(a.msgid, 8);
	cr_assert(peer_is_quiet());
	for (i = 0; i < 16; i++)
		part_expect(URD_KIND_CHUNK, other, i);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	credit_get(other, 8);
	credit_get(other, 8);
	client_shut();
}

static void *stream_on(void *arg)
{
	u32 *called = arg;
	u8 i;

	*called = frame_get().msgid;
	for (i = 0; i < 5; i++)
		chunk_put(*called, i);
	return NULL;
}

Test(client_stream, a_stream_that_is_given_up)
{
	struct parts parts = { .stop = 2 };
	struct urd_answer a;
	pthread_t thread;
	struct urd_msg m;
	u32 called;

	client_open();
	cr_assert_eq(pthread_create(&thread, NULL, stream_on, &called), 0);
	cr_assert_eq(urd_client_stream(client, "m", "\x01", 1, NULL, part_check, &parts, &a),
		     -ECANCELED);
	cr_assert_eq(parts.next, 3);
	pthread_join(thread, NULL);
	m = frame_get();
	cr_assert(urd_span_is(m.method, "urd.cancel"));
	ANSWER(called, "\x81\xa4"
		       "code\x0c\xc0");
	cr_assert_eq(urd_client_turn(client, &a), 0, "the rest is for nobody");
	cr_assert_eq(urd_client_send(client, "m", "\x01", 1, NULL, &called), 0);
	client_shut();
}
