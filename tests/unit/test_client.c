// SPDX-License-Identifier: MIT
/*
 * The C client against a daemon that is played byte by byte over a socket.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/client_peer.h"
#include "wire/mp.h"

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / NSEC_PER_MSEC;
}

Test(client, bad_addresses)
{
	static const struct {
		const char *address;
		int ret;
	} table[] = {
		{ "", -EINVAL },
		{ "unix:", -EINVAL },
		{ "relative/path", -EINVAL },
		{ "http://x", -EINVAL },
		{ "tcp:", -EINVAL },
		{ "tcp:host", -EINVAL },
		{ "tcp::1", -EINVAL },
		{ "tcp:127.0.0.1:", -EINVAL },
		{ "tcp:127.0.0.1:no-such-port", -EINVAL },
		{ "/nonexistent/socket", -ENOENT },
		{ "unix:/nonexistent/socket", -ENOENT },
	};
	char path[256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(table); i++)
		cr_assert_eq(urd_client_open(table[i].address, &client), table[i].ret, "%s",
			     table[i].address);
	memset(path, '/', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	cr_assert_eq(urd_client_open(path, &client), -ENAMETOOLONG);
	urd_client_close(NULL);
}

Test(client, tcp)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct pollfd pfd = { .events = POLLIN };
	socklen_t len = sizeof(sa);
	struct urd_answer a;
	char address[64];
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	u32 msgid;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(bind(listener, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
	snprintf(address, sizeof(address), "tcp:127.0.0.1:%u", ntohs(sa.sin_port));
	cr_assert_eq(urd_client_open(address, &client), -ECONNREFUSED);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(urd_client_open(address, &client), 0);
	peer = accept(listener, NULL, NULL);
	msgid = send_one("m");
	cr_assert_eq(frame_get().msgid, msgid);
	close(peer);
	pfd.fd = urd_client_fd(client);
	cr_assert_eq(poll(&pfd, 1, PATIENCE_MS), 1);
	cr_assert_eq(urd_client_turn(client, &a), -EPIPE);
	urd_client_close(client);
	close(listener);
}

Test(client, request_bytes)
{
	const struct urd_client_opts opts = { .deadline_ms = 1500, .traceparent = "tp" };
	struct urd_answer a;
	struct urd_msg m;
	struct urd_mp map;
	struct urd_mp v;
	struct urd_span s;
	u32 msgid;
	u64 n;

	client_open();
	cr_assert_eq(urd_client_events(client), POLLIN);
	cr_assert_eq(urd_client_send(client, "p/m", "\x92\x01\x02", 3, &opts, &msgid), 0);
	cr_assert_eq(urd_client_events(client), POLLIN | POLLOUT);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	cr_assert_eq(urd_client_events(client), POLLIN);
	m = frame_get();
	cr_assert_eq(m.tag, URD_TAG_REQUEST);
	cr_assert_eq(m.msgid, msgid);
	cr_assert(urd_span_is(m.method, "p/m"));
	cr_assert(m.params.len == 3 && !memcmp(m.params.p, "\x92\x01\x02", 3));
	map = (struct urd_mp){ m.meta.p, m.meta.p + m.meta.len };
	cr_assert_eq(urd_mp_find(&map, "deadline_ms", &v), 0);
	cr_assert_eq(urd_mp_uint(&v, &n), 0);
	cr_assert_eq(n, 1500);
	cr_assert_eq(urd_mp_find(&map, "traceparent", &v), 0);
	cr_assert_eq(urd_mp_str(&v, &s), 0);
	cr_assert(urd_span_is(s, "tp"));
	send_one("m");
	cr_assert_eq(frame_get().meta.len, 0, "no options, no meta");
	client_shut();
}

Test(client, requests_that_are_refused)
{
	static u8 params[URD_REQUEST_MAX + 1];
	char method[URD_METHOD_MAX + 2];
	u32 msgid;
	int i;

	client_open();
	cr_assert_eq(urd_client_send(client, "m", "", 0, NULL, &msgid), -EINVAL);
	cr_assert_eq(urd_client_send(client, "m", "\xc1", 1, NULL, &msgid), -EINVAL);
	cr_assert_eq(urd_client_send(client, "m", "\x01\x01", 2, NULL, &msgid), -EINVAL);
	cr_assert_eq(urd_client_send(client, "m", params, sizeof(params), NULL, &msgid), -EMSGSIZE);
	memset(method, 'm', sizeof(method) - 1);
	method[sizeof(method) - 1] = '\0';
	cr_assert_eq(urd_client_send(client, method, "\x01", 1, NULL, &msgid), -EMSGSIZE);
	cr_assert_eq(urd_client_events(client), POLLIN, "nothing of it is sent");
	/* a binary that fills the frame to the last byte but the envelope */
	params[0] = 0xc6;
	put_be32(params + 1, URD_REQUEST_MAX - 64);
	for (i = 0; i < 3; i++)
		cr_assert_eq(urd_client_send(client, "m", params, URD_REQUEST_MAX - 59, NULL,
					     &msgid),
			     0);
	cr_assert_eq(urd_client_send(client, "m", params, URD_REQUEST_MAX - 59, NULL, &msgid), 0);
	cr_assert_eq(urd_client_send(client, "m", params, URD_REQUEST_MAX - 59, NULL, &msgid),
		     -ENOBUFS);
	client_shut();
}

Test(client, answers_in_any_order)
{
	struct urd_answer a;
	u32 id[3];
	int i;

	client_open();
	for (i = 0; i < 3; i++)
		id[i] = send_one("m");
	ANSWER(id[2], "\xc0\x03");
	ANSWER(id[0], "\xc0\x01");
	peer_write("\0\0\0\x04\x93\x02\xa0\xc0", 8); /* a notification is nobody's answer */
	ANSWER(id[1], "\xc0\xa2hi");
	for (i = 0; i < 3; i++) {
		cr_assert_eq(urd_client_turn(client, &a), 1);
		cr_assert_eq(a.msgid, id[(i + 2) % 3]);
		cr_assert_eq(a.code, URD_OK);
		cr_assert_eq(a.executed, URD_EXECUTED_YES);
		cr_assert_str_eq(a.message, "");
	}
	cr_assert(a.result_len == 3 && !memcmp(a.result, "\xa2hi", 3));
	cr_assert_eq(urd_client_turn(client, &a), 0);
	client_shut();
}

Test(client, any_split_of_the_bytes)
{
	static u8 bytes[512];
	struct urd_answer a;
	u32 id[2];
	size_t len;
	size_t cut;
	size_t i;

	client_open();
	for (cut = 1;; cut++) {
		id[0] = send_one("m");
		id[1] = send_one("m");
		len = answer_make(bytes, id[0], "\xc0\x93\x01\x02\x03", 5);
		len += answer_make(bytes + len, id[1], "\xc0\xa1x", 3);
		if (cut == len)
			break;
		peer_write(bytes, cut);
		for (i = 0; urd_client_turn(client, &a) == 1; i++)
			cr_assert_eq(a.msgid, id[i]);
		peer_write(bytes + cut, len - cut);
		for (; i < 2; i++) {
			cr_assert_eq(urd_client_turn(client, &a), 1, "cut %zu", cut);
			cr_assert_eq(a.msgid, id[i]);
			cr_assert_eq(a.result_len, i ? 2 : 4);
		}
		cr_assert_eq(urd_client_turn(client, &a), 0);
	}
	client_shut();
}

Test(client, errors_are_read)
{
	static const struct {
		const char *error;
		size_t len;
		int code;
		enum urd_executed executed;
		const char *message;
	} table[] = {
		{ "\x83\xa4"
		  "code\x02\xa7"
		  "message\xa1x\xa8"
		  "executed\xa2no",
		  29, URD_BUSY, URD_EXECUTED_NO, "x" },
		{ "\x82\xa4"
		  "code\x01\xa8"
		  "executed\xa3yes",
		  20, URD_APP, URD_EXECUTED_YES, "" },
		{ "\x82\xa4"
		  "code\x04\xa8"
		  "executed\xa5maybe",
		  22, URD_EXEC_TIMEOUT, URD_EXECUTED_MAYBE, "" },
		{ "\x81\xa4"
		  "code\x63",
		  7, 99, URD_EXECUTED_MAYBE, "" },
		{ "\x81\xa4"
		  "code\x00",
		  7, URD_IO, URD_EXECUTED_MAYBE, "" },
		{ "\x81\xa4"
		  "code\xff",
		  7, URD_IO, URD_EXECUTED_MAYBE, "" },
		{ "\xa4oops", 5, URD_IO, URD_EXECUTED_MAYBE, "oops" },
		{ "\x90", 1, URD_IO, URD_EXECUTED_MAYBE, "" },
	};
	struct urd_answer a;
	char body[64];
	size_t i;

	client_open();
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		u32 msgid = send_one("m");

		memcpy(body, table[i].error, table[i].len);
		body[table[i].len] = '\xc0';
		answer_put(msgid, body, table[i].len + 1);
		cr_assert_eq(urd_client_turn(client, &a), 1);
		cr_assert_eq((int)a.code, table[i].code, "row %zu", i);
		cr_assert_eq(a.executed, table[i].executed, "row %zu", i);
		cr_assert_str_eq(a.message, table[i].message, "row %zu", i);
		cr_assert_eq(a.result_len, table[i].len, "row %zu", i);
		cr_assert_eq(memcmp(a.result, table[i].error, a.result_len), 0);
	}
	client_shut();
}

Test(client, nonsense_ends_the_connection)
{
	static const struct {
		const char *bytes;
		size_t len;
		int ret;
	} table[] = {
		{ "\0\0\0\0", 4, -EBADMSG },
		{ "\xff\xff\xff\xff", 4, -EMSGSIZE },
		{ "\0\0\0\x01\xc1", 5, -EBADMSG },
		{ "\0\0\0\x05\x94\x00\x00\xa0\xc0", 9, -EBADMSG },
		{ "\0\0\0\x05\x94\x01\x07\xc0\xc0", 9, -EBADMSG },
		{ "\0\0\0\x06\x94\x01\x00\xc0\xc0\xc0", 10, -EBADMSG },
		{ "\0\0\0\x04\x93\x03\x00\xc0", 8, -EBADMSG },
		{ "\0\0\0\x03\x94\x01\x00", 7, -EBADMSG },
	};
	struct urd_answer a;
	size_t i;
	u32 msgid;

	for (i = 0; i < ARRAY_SIZE(table); i++) {
		client_open();
		send_one("m");
		peer_write(table[i].bytes, table[i].len);
		cr_assert_eq(urd_client_turn(client, &a), table[i].ret, "row %zu", i);
		cr_assert_eq(urd_client_turn(client, &a), table[i].ret, "row %zu", i);
		cr_assert_eq(urd_client_send(client, "m", "\x01", 1, NULL, &msgid), -EPIPE);
		client_shut();
	}
}

Test(client, an_answer_comes_once)
{
	struct urd_answer a;
	u32 msgid;

	client_open();
	msgid = send_one("m");
	ANSWER(msgid, "\xc0\x01");
	cr_assert_eq(urd_client_turn(client, &a), 1);
	cr_assert_neq(send_one("m"), msgid, "numbers are not used again at once");
	ANSWER(msgid, "\xc0\x01");
	cr_assert_eq(urd_client_turn(client, &a), -EBADMSG);
	client_shut();
}

Test(client, end_of_file)
{
	static u8 bytes[64];
	struct urd_answer a;
	size_t len;
	size_t cut;
	u32 msgid;

	for (cut = 0; cut <= 13; cut++) {
		client_open();
		msgid = send_one("m");
		len = answer_make(bytes, msgid, "\xc0\x01", 2);
		cr_assert_eq(len, 13);
		peer_write(bytes, cut);
		peer_read(frame, 4); /* unread bytes would make it a reset */
		peer_read(frame, get_be32(frame));
		close(peer);
		if (cut == len)
			cr_assert_eq(urd_client_turn(client, &a), 1, "the answer was whole");
		cr_assert_eq(urd_client_turn(client, &a), -EPIPE, "cut %zu", cut);
		cr_assert_eq(urd_client_call(client, "m", "\x01", 1, NULL, &a), -EPIPE);
		urd_client_close(client);
	}
}

Test(client, writing_to_one_who_left)
{
	struct urd_answer a;
	int ret;

	client_open();
	close(peer);
	ret = urd_client_call(client, "m", "\x01", 1, NULL, &a);
	cr_assert_eq(ret, -EPIPE, "and no SIGPIPE");
	urd_client_close(client);
}

Test(client, cancel)
{
	struct urd_answer a;
	struct urd_msg m;
	u32 msgid;

	client_open();
	cr_assert_eq(urd_client_cancel(client, 3), -ENOENT);
	msgid = send_one("m");
	frame_get();
	cr_assert_eq(urd_client_cancel(client, msgid), 0);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	m = frame_get();
	cr_assert_eq(m.tag, URD_TAG_NOTIFY);
	cr_assert(urd_span_is(m.method, "urd.cancel"));
	cr_assert(m.params.len == 2 && m.params.p[0] == 0x91 && m.params.p[1] == msgid);
	ANSWER(msgid, "\x81\xa4"
		      "code\x0c\xc0");
	cr_assert_eq(urd_client_turn(client, &a), 1, "its answer still comes");
	cr_assert_eq(a.code, URD_CANCELLED);
	client_shut();
}

/* Answers to a call with those of two earlier sends, the wanted one last. */
static void *answer_three(void *arg)
{
	const u32 *id = arg;
	u32 called;

	frame_get();
	frame_get();
	called = frame_get().msgid;
	ANSWER(id[1], "\xc0\x02");
	ANSWER(id[0], "\xc0\x01");
	ANSWER(called, "\xc0\x03");
	return NULL;
}

Test(client, call_keeps_the_answers_of_others)
{
	struct urd_answer a;
	pthread_t thread;
	u32 id[2];

	client_open();
	id[0] = send_one("m");
	id[1] = send_one("m");
	cr_assert_eq(pthread_create(&thread, NULL, answer_three, id), 0);
	cr_assert_eq(urd_client_call(client, "m", "\x01", 1, NULL, &a), 0);
	cr_assert_eq(*(const u8 *)a.result, 3);
	pthread_join(thread, NULL);
	cr_assert_eq(urd_client_turn(client, &a), 1);
	cr_assert(a.msgid == id[1] && *(const u8 *)a.result == 2);
	cr_assert_eq(urd_client_turn(client, &a), 1);
	cr_assert(a.msgid == id[0] && *(const u8 *)a.result == 1);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	client_shut();
}

Test(client, a_call_gives_up_and_drops_the_late_answer)
{
	const struct urd_client_opts opts = { .deadline_ms = 30 };
	struct urd_answer a;
	u64 begin;
	u32 late;

	client_open();
	begin = now_ms();
	cr_assert_eq(urd_client_call(client, "m", "\x01", 1, &opts, &a), -ETIMEDOUT);
	cr_assert_geq(now_ms() - begin, 30);
	late = frame_get().msgid;
	cr_assert(urd_span_is(frame_get().method, "urd.cancel"));
	ANSWER(late, "\xc0\x01");
	cr_assert_eq(urd_client_turn(client, &a), 0, "nobody waits for it");
	ANSWER(late, "\xc0\x01");
	cr_assert_eq(urd_client_turn(client, &a), -EBADMSG, "but it comes once");
	client_shut();
}

#define LARGE (3u << 20)

/* Reads a large request slowly enough to fill the socket, answers with as much. */
static void *echo_large(void *arg)
{
	u8 *bytes = arg;
	size_t done;
	ssize_t n;

	peer_read(bytes, 4);
	peer_read(bytes + 4, get_be32(bytes));
	/* the same frame is an answer if the tag says so and the method is nil, nil */
	n = (ssize_t)answer_make(bytes, 0, "\xc0\xc6", 2);
	put_be32(bytes, 7 + 1 + 5 + LARGE);
	put_be32(bytes + n, LARGE);
	for (done = 0; done < 4 + 7 + 1 + 5 + LARGE; done += (size_t)n) {
		n = write(peer, bytes + done, 4 + 7 + 1 + 5 + LARGE - done);
		cr_assert_gt(n, 0);
	}
	return NULL;
}

Test(client, large_both_ways)
{
	u8 *params = calloc(1, LARGE + 5);
	u8 *bytes = calloc(1, LARGE + 128);
	struct urd_answer a;
	pthread_t thread;

	client_open();
	params[0] = 0xc6;
	put_be32(params + 1, LARGE);
	cr_assert_eq(pthread_create(&thread, NULL, echo_large, bytes), 0);
	cr_assert_eq(urd_client_call(client, "m", params, LARGE + 5, NULL, &a), 0);
	cr_assert_eq(a.result_len, LARGE + 5);
	pthread_join(thread, NULL);
	client_shut();
	free(params);
	free(bytes);
}

Test(client, many_outstanding)
{
	static u32 id[1000];
	struct urd_answer a;
	u32 i;

	client_open();
	for (i = 0; i < ARRAY_SIZE(id); i++)
		id[i] = send_one("m");
	for (i = ARRAY_SIZE(id); i-- > 0;) {
		ANSWER(id[i], "\xc0\xc0");
		cr_assert_eq(urd_client_turn(client, &a), 1);
		cr_assert_eq(a.msgid, id[i]);
	}
	client_shut();
}
