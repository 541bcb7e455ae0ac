// SPDX-License-Identifier: MIT
/*
 * The C worker against a daemon that is played byte by byte over four pipes.
 */
#include <urd/worker.h>

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "wire/mp.h"
#include "wire/rpc.h"

#define PATIENCE_MS 10000

struct peer {
	struct urd_worker *w;
	int task;
	int answers;
	int down;
	int up;
	u8 frame[1 << 17];
};

static struct peer peer;

static void peer_open(void)
{
	int p[4][2];
	struct urd_worker_conf conf;
	int i;

	for (i = 0; i < 4; i++)
		cr_assert_eq(pipe(p[i]), 0);
	conf = (struct urd_worker_conf){ 0, p[0][0], p[1][1], p[2][0], p[3][1] };
	peer.task = p[0][1];
	peer.answers = p[1][0];
	peer.down = p[2][1];
	peer.up = p[3][0];
	peer.w = urd_worker_new(&conf);
	cr_assert_not_null(peer.w);
	for (i = 0; i < 4; i++)
		cr_assert(fcntl(p[i][i & 1], F_GETFD) & FD_CLOEXEC, "descriptor %d", i);
}

static void put(int fd, const void *data, size_t len)
{
	cr_assert_eq(write(fd, data, len), (ssize_t)len);
}

/* A frame of the bytes of a string literal. */
#define SEND(fd, text) frame_send(fd, text, sizeof(text) - 1)

static void frame_send(int fd, const char *body, size_t len)
{
	u8 head[4];

	put_be32(head, (u32)len);
	put(fd, head, 4);
	put(fd, body, len);
}

static void get(int fd, u8 *p, size_t len)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	ssize_t n;

	while (len) {
		cr_assert_eq(poll(&pfd, 1, PATIENCE_MS), 1, "nothing came");
		n = read(fd, p, len);
		cr_assert_gt(n, 0);
		p += n;
		len -= (size_t)n;
	}
}

static struct urd_msg frame_get(int fd)
{
	struct urd_msg m;
	u32 len;

	get(fd, peer.frame, 4);
	len = get_be32(peer.frame);
	cr_assert(len && len <= sizeof(peer.frame));
	get(fd, peer.frame, len);
	cr_assert_eq(urd_rpc_parse(peer.frame, len, &m), 0);
	return m;
}

static bool silent(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 0;
}

static s64 code_of(const struct urd_msg *m)
{
	struct urd_span text;
	s64 code;

	cr_assert(m->failed);
	urd_fail_parse(m->error, &code, &text);
	return code;
}

static int echo(struct urd_req *req, void *arg)
{
	(*(int *)arg)++;
	return urd_req_reply(req, urd_req_params(req), urd_req_params_len(req));
}

static int nothing(struct urd_req *req, void *arg)
{
	(void)req;
	(void)arg;
	return 0;
}

static int refuse(struct urd_req *req, void *arg)
{
	(void)req;
	(void)arg;
	return -EDOM;
}

static void ready_get(void)
{
	struct urd_msg m = frame_get(peer.up);
	struct urd_mp map = { m.params.p, m.params.p + m.params.len };
	struct urd_mp v;
	u64 n;

	cr_assert_eq(m.tag, URD_TAG_NOTIFY);
	cr_assert(urd_span_is(m.method, "control.ready"));
	cr_assert_eq(urd_mp_find(&map, "pid", &v), 0);
	cr_assert_eq(urd_mp_uint(&v, &n), 0);
	cr_assert_eq(n, (u64)getpid());
	cr_assert_eq(urd_mp_find(&map, "protocol", &v), 0);
	cr_assert_eq(urd_mp_uint(&v, &n), 0);
	cr_assert_eq(n, URD_PROTOCOL_VERSION);
}

Test(worker, not_started_by_urd)
{
	unsetenv("URD_TASK_IN_FD");
	cr_assert_null(urd_worker_new(NULL));
	cr_assert_eq(errno, ENOENT);
	setenv("URD_TASK_IN_FD", "three", 1);
	cr_assert_null(urd_worker_new(NULL));
	cr_assert_eq(errno, EINVAL);
	setenv("URD_TASK_IN_FD", "900", 1);
	cr_assert_null(urd_worker_new(NULL));
	cr_assert_eq(errno, EBADF);
}

Test(worker, a_method_has_one_handler)
{
	int n = 0;

	peer_open();
	cr_assert_eq(urd_worker_on(peer.w, "a", echo, &n), 0);
	cr_assert_eq(urd_worker_on(peer.w, "a", nothing, NULL), -EEXIST);
	cr_assert_eq(urd_worker_on(peer.w, NULL, nothing, NULL), 0);
	cr_assert_eq(urd_worker_on(peer.w, NULL, echo, &n), -EEXIST);
	urd_worker_free(peer.w);
	urd_worker_free(NULL);
}

Test(worker, run_serves_until_the_end)
{
	struct urd_msg m;
	int n = 0;

	peer_open();
	urd_worker_on(peer.w, "echo", echo, &n);
	urd_worker_on(peer.w, "nil", nothing, NULL);
	urd_worker_on(peer.w, "bad", refuse, NULL);
	SEND(peer.task, "\x94\x00\x01\xa4"
			"echo\x93\x01\x02\x03");
	SEND(peer.task, "\x94\x00\xce\xff\xff\xff\xff\xa3nil\xc0");
	SEND(peer.task, "\x94\x00\x02\xa3"
			"bad\xc0");
	SEND(peer.task, "\x94\x00\x03\xa4nope\xc0");
	SEND(peer.task, "\x93\x02\xa3who\xc0");
	SEND(peer.task, "\x94\x00\x04\xa5"
			"echo\0\xc0");
	close(peer.task);
	cr_assert_eq(urd_worker_run(peer.w), 0);
	cr_assert_eq(n, 1);
	ready_get();
	m = frame_get(peer.answers);
	cr_assert_eq(m.msgid, 1);
	cr_assert(!m.failed && m.params.len == 4 && !memcmp(m.params.p, "\x93\x01\x02\x03", 4));
	m = frame_get(peer.answers);
	cr_assert_eq(m.msgid, UINT32_MAX);
	cr_assert(!m.failed && m.params.len == 1 && m.params.p[0] == 0xc0);
	m = frame_get(peer.answers);
	cr_assert_eq(m.msgid, 2);
	cr_assert_eq(code_of(&m), -EDOM);
	m = frame_get(peer.answers);
	cr_assert_eq(m.msgid, 3);
	cr_assert_eq(code_of(&m), -32601);
	m = frame_get(peer.answers);
	cr_assert_eq(m.msgid, 4);
	cr_assert_eq(code_of(&m), -32601, "a NUL does not end a name");
	cr_assert(silent(peer.answers));
}

/* Feed a stream in two pieces, cut at each place, and expect the same. */
Test(worker, any_split_of_the_bytes)
{
	static const char frames[] = "\0\0\0\x09\x94\x00\x01\xa4"
				     "echo\x07\0\0\0\x09\x94\x00\x02\xa4"
				     "echo\x08";
	const size_t len = sizeof(frames) - 1;
	struct urd_req *req;
	size_t cut;
	int ret;
	u32 i;

	for (cut = 1; cut < len; cut++) {
		peer_open();
		cr_assert_eq(urd_worker_ready(peer.w), 0);
		put(peer.task, frames, cut);
		if (fork() == 0) {
			usleep(2000);
			put(peer.task, frames + cut, len - cut);
			_exit(0);
		}
		close(peer.task);
		for (i = 1; i <= 2; i++) {
			ret = urd_worker_next(peer.w, &req);
			cr_assert_eq(ret, 1, "cut %zu request %u: %d", cut, i, ret);
			cr_assert_str_eq(urd_req_method(req), "echo");
			cr_assert_eq(*(const u8 *)urd_req_params(req), 6 + i);
			cr_assert_eq(urd_req_reply(req, "\x01", 1), 0);
			cr_assert_eq(frame_get(peer.answers).msgid, i);
		}
		cr_assert_eq(urd_worker_next(peer.w, &req), 0);
		urd_worker_free(peer.w);
		close(peer.answers);
		close(peer.down);
		close(peer.up);
	}
}

Test(worker, end_of_file_within_a_frame)
{
	static const char frame[] = "\0\0\0\x09\x94\x00\x01\xa4"
				    "echo\x07";
	struct urd_req *req;
	size_t cut;

	for (cut = 1; cut < sizeof(frame) - 1; cut++) {
		peer_open();
		put(peer.task, frame, cut);
		close(peer.task);
		cr_assert_eq(urd_worker_next(peer.w, &req), -EPROTO, "cut %zu", cut);
		urd_worker_free(peer.w);
	}
}

Test(worker, garbage_is_refused)
{
	static const struct {
		const char *bytes;
		size_t len;
		int ret;
	} table[] = {
		{ "\0\0\0\0", 4, -EBADMSG },
		{ "\xff\xff\xff\xff", 4, -EMSGSIZE },
		{ "\x04\0\0\x01", 4, -EMSGSIZE },
		{ "\0\0\0\x01\xc1", 5, -EBADMSG },
		{ "\0\0\0\x04\x94\x01\x01\xc0", 8, -EBADMSG },
		{ "\0\0\0\x04\x94\x01\xc0\xc0", 8, -EBADMSG },
		{ "\0\0\0\x05\x94\x01\x01\xc0\xc0", 9, -EBADMSG },
		{ "\0\0\0\x06\x94\x00\x01\xa1x\xc0", 10, 1 },
		{ "\0\0\0\x07\x94\x00\x01\xa1x\xc0\xc0", 11, -EBADMSG },
	};
	struct urd_req *req;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(table); i++) {
		peer_open();
		put(peer.task, table[i].bytes, table[i].len);
		close(peer.task);
		cr_assert_eq(urd_worker_next(peer.w, &req), table[i].ret, "row %zu", i);
		urd_worker_free(peer.w);
	}
}

Test(worker, meta_is_read)
{
	struct urd_req *req;

	peer_open();
	SEND(peer.task, "\x95\x00\x01\xa1x\xc0\x85\xab"
			"deadline_ms\xcd\x13\x88\xa7"
			"attempt\x03\xabtraceparent\xa2tp\xa6stream\xc3\xa1?\x90");
	SEND(peer.task, "\x94\x00\x02\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert_eq(urd_req_deadline_ms(req), 5000);
	cr_assert_eq(urd_req_attempt(req), 3);
	cr_assert_str_eq(urd_req_trace(req), "tp");
	cr_assert(urd_req_wants_stream(req));
	cr_assert_eq(urd_req_reply(req, "\xc0", 1), 0);
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert_eq(urd_req_deadline_ms(req), -1);
	cr_assert_eq(urd_req_attempt(req), 1);
	cr_assert_null(urd_req_trace(req));
	cr_assert(!urd_req_wants_stream(req));
	cr_assert_eq(urd_req_chunk(req, "\xc0", 1), -EINVAL);
	urd_worker_free(peer.w);
}

Test(worker, a_request_is_answered_once)
{
	struct urd_req *req;
	struct urd_msg m;

	peer_open();
	SEND(peer.task, "\x94\x00\x01\xa1x\xc0");
	SEND(peer.task, "\x94\x00\x02\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert_eq(urd_req_reply(req, "\xc1", 1), -EINVAL);
	cr_assert_eq(urd_req_reply(req, "\x01\x01", 2), -EINVAL);
	cr_assert_eq(urd_req_reply(req, "\x91", 1), -EINVAL);
	cr_assert(silent(peer.answers));
	cr_assert_eq(urd_req_reply(req, "\x01", 1), 0);
	cr_assert_eq(urd_req_reply(req, "\x01", 1), -EALREADY);
	cr_assert_eq(urd_req_fail(req, 1, "x"), -EALREADY);
	cr_assert_eq(urd_req_chunk(req, "\x01", 1), -EALREADY);
	cr_assert_eq(urd_req_progress(req, "\x01", 1), -EALREADY);
	cr_assert_eq(frame_get(peer.answers).msgid, 1);
	cr_assert(silent(peer.answers));
	/* the next one is forgotten: it is answered for */
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	close(peer.task);
	cr_assert_eq(urd_worker_next(peer.w, &req), 0);
	m = frame_get(peer.answers);
	cr_assert_eq(m.msgid, 2);
	cr_assert_eq(code_of(&m), -32603);
	urd_worker_free(peer.w);
}

Test(worker, long_error_texts_are_cut_between_characters)
{
	struct urd_req *req;
	struct urd_span text;
	struct urd_msg m;
	char message[8192];
	s64 code;
	size_t i;

	peer_open();
	message[0] = 'x';
	for (i = 1; i + 2 < sizeof(message); i += 2)
		memcpy(message + i, "\xc3\xa9", 2);
	message[i] = '\0';
	SEND(peer.task, "\x94\x00\x01\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert_eq(urd_req_fail(req, 5, message), 0);
	m = frame_get(peer.answers);
	urd_fail_parse(m.error, &code, &text);
	cr_assert_eq(code, 5);
	cr_assert_gt(text.len, 4000);
	cr_assert_eq(text.p[text.len - 1], 0xa9);
	cr_assert_eq(memcmp(text.p, message, text.len), 0);
	urd_worker_free(peer.w);
}

Test(worker, cancel_hits_its_request_alone)
{
	struct urd_req *req;

	peer_open();
	SEND(peer.down, "\x93\x02\xae"
			"control.cancel\x91\x01");
	SEND(peer.task, "\x94\x00\x02\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert(!urd_req_cancelled(req), "a cancel of another request");
	SEND(peer.down, "\x93\x02\xae"
			"control.cancel\x91");
	cr_assert(!urd_req_cancelled(req), "nonsense");
	SEND(peer.down, "\x93\x02\xae"
			"control.cancel\x91\x02");
	cr_assert(urd_req_cancelled(req));
	cr_assert_eq(urd_req_fail(req, 1, "cancelled"), 0);
	SEND(peer.task, "\x94\x00\x03\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert(!urd_req_cancelled(req), "the flag belongs to the request before");
	close(peer.down);
	cr_assert(!urd_req_cancelled(req), "a closed channel cancels nothing");
	urd_worker_free(peer.w);
}

/* Both are there before the worker looks, and the control channel is polled too. */
Test(worker, cancel_with_its_request)
{
	struct urd_req *req;

	peer_open();
	SEND(peer.task, "\x94\x00\x02\xa1x\xc0");
	SEND(peer.down, "\x93\x02\xae"
			"control.cancel\x91\x02");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	cr_assert(urd_req_cancelled(req));
	urd_worker_free(peer.w);
}

Test(worker, chunks_wait_for_credit)
{
	struct urd_req *req;
	struct urd_msg m;
	int status;
	int i;

	peer_open();
	SEND(peer.task, "\x95\x00\x01\xa1x\xc0\x81\xa6stream\xc3");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	for (i = 0; i < 16; i++)
		cr_assert_eq(urd_req_chunk(req, "\x05", 1), 0);
	if (fork() == 0) {
		for (i = 0; i < 16; i++)
			frame_get(peer.answers);
		/* no seventeenth before the credit */
		usleep(20000);
		if (!silent(peer.answers))
			_exit(1);
		SEND(peer.down, "\x93\x02\xae"
				"control.credit\x92\x09\x05");
		SEND(peer.down, "\x93\x02\xae"
				"control.credit\x92\x01\x01");
		_exit(0);
	}
	cr_assert_eq(urd_req_chunk(req, "\x06", 1), 0);
	cr_assert_gt(wait(&status), 0);
	cr_assert_eq(status, 0, "a chunk came without credit");
	m = frame_get(peer.answers);
	cr_assert_eq(m.tag, URD_TAG_CHUNK);
	cr_assert_eq(m.params.p[0], 6);
	SEND(peer.down, "\x93\x02\xae"
			"control.cancel\x91\x01");
	cr_assert_eq(urd_req_chunk(req, "\x07", 1), -ECANCELED);
	cr_assert_eq(urd_req_chunk(req, "\x07", 1), -ECANCELED);
	cr_assert_eq(urd_req_reply(req, "\xc0", 1), 0);
	m = frame_get(peer.answers);
	cr_assert_eq(m.tag, URD_TAG_RESPONSE);
	urd_worker_free(peer.w);
}

Test(worker, chunk_without_credit_and_without_urd)
{
	struct urd_req *req;
	int i;

	peer_open();
	SEND(peer.task, "\x95\x00\x01\xa1x\xc0\x81\xa6stream\xc3");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	for (i = 0; i < 16; i++)
		cr_assert_eq(urd_req_chunk(req, "\x05", 1), 0);
	close(peer.down);
	cr_assert_eq(urd_req_chunk(req, "\x05", 1), -EPIPE);
	urd_worker_free(peer.w);
}

Test(worker, says_to_urd)
{
	struct urd_req *req;
	struct urd_msg m;

	peer_open();
	SEND(peer.task, "\x94\x00\x09\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 1);
	ready_get();
	cr_assert_eq(urd_worker_ready(peer.w), -EALREADY);
	cr_assert_eq(urd_req_progress(req, "\x18", 1), 0);
	cr_assert_eq(urd_worker_retire(peer.w), 0);
	cr_assert_eq(urd_worker_heartbeat(peer.w), 0);
	m = frame_get(peer.up);
	cr_assert(urd_span_is(m.method, "control.progress"));
	cr_assert_eq(m.params.len, 3);
	cr_assert_eq(memcmp(m.params.p, "\x92\x09\x18", 3), 0);
	cr_assert(urd_span_is(frame_get(peer.up).method, "control.retire"));
	cr_assert(urd_span_is(frame_get(peer.up).method, "control.heartbeat"));
	urd_worker_free(peer.w);
}

Test(worker, term_ends_after_what_was_sent)
{
	struct urd_req *req;

	peer_open();
	cr_assert_eq(urd_worker_ready(peer.w), 0);
	SEND(peer.task, "\x94\x00\x01\xa1x\xc0");
	raise(SIGINT);
	raise(SIGTERM);
	cr_assert_eq(urd_worker_next(peer.w, &req), 1, "it was there before the signal");
	cr_assert_eq(urd_req_reply(req, "\xc0", 1), 0);
	SEND(peer.task, "\x94\x00\x02\xa1x\xc0");
	cr_assert_eq(urd_worker_next(peer.w, &req), 0, "it came after");
	urd_worker_free(peer.w);
}

Test(worker, term_wakes_an_idle_worker)
{
	struct urd_req *req;
	pid_t pid = getpid();

	peer_open();
	if (fork() == 0) {
		get(peer.up, peer.frame, 4); /* ready went out: it waits, or is about to */
		kill(pid, SIGTERM);
		_exit(0);
	}
	cr_assert_eq(urd_worker_next(peer.w, &req), 0);
	urd_worker_free(peer.w);
}

Test(worker, a_reader_that_left_ends_the_run_quietly)
{
	int n = 0;

	peer_open();
	urd_worker_on(peer.w, NULL, echo, &n);
	SEND(peer.task, "\x94\x00\x01\xa1x\xc0");
	SEND(peer.task, "\x94\x00\x02\xa1x\xc0");
	close(peer.answers);
	cr_assert_eq(urd_worker_run(peer.w), 0);
	cr_assert_eq(n, 1);
}
