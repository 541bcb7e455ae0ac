// SPDX-License-Identifier: MIT
/*
 * A worker that misbehaves on demand, written on bare descriptors from
 * docs/worker-protocol.md alone.  How it boots is told by its first argument,
 * what it does about a request by the method's name; params are handed back
 * byte for byte.  With FOLK_TASK_FD in its environment it speaks the folk
 * protocol, so that each fault can be shown to both.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire/mp.h"
#include "wire/rpc.h"

#define FRAME_MAX (64u << 20)
#define MIB (1u << 20)

static struct {
	bool folk;
	bool cancel; /* offers the feature */
	int task_in;
	int task_out;
	int control_out;
	u32 step; /* longest read, bytes */
	u32 last; /* msgid answered before this one */
} self = { .step = FRAME_MAX };

static u8 in[FRAME_MAX];
static u8 out[FRAME_MAX];

struct request {
	struct urd_msg msg;
	u64 number; /* params, if they are a number */
};

/* ---- bytes ---- */

static void write_all(int fd, const void *data, size_t len)
{
	const u8 *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		p += n;
		len -= (size_t)n;
	}
}

/* False at the end of file. */
static bool read_all(u8 *p, u32 len)
{
	while (len) {
		ssize_t n = read(self.task_in, p, urd_min(len, self.step));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (u32)n;
	}
	return true;
}

static void frame_send(int fd, const void *payload, u32 len)
{
	u8 head[URD_FRAME_HEADER];

	put_be32(head, len);
	write_all(fd, head, sizeof(head));
	write_all(fd, payload, len);
}

static void text_send(int fd, const char *payload)
{
	frame_send(fd, payload, (u32)strlen(payload));
}

/* An answer; @error may be NULL for nil. */
static void answer(u32 msgid, const void *error, u32 error_len, const void *result, u32 len)
{
	u8 *body = out + 64;
	u8 *p = body;
	u8 *frame;

	if (!error) {
		error = "\xc0";
		error_len = 1;
	}
	memcpy(p, error, error_len);
	p += error_len;
	memcpy(p, result, len);
	p += len;
	frame = urd_rpc_put_response(body, (u32)(p - body), msgid, true);
	write_all(self.task_out, frame, (size_t)(p - frame));
	self.last = msgid;
}

static void answer_params(const struct request *rq)
{
	answer(rq->msg.msgid, NULL, 0, rq->msg.params.p, rq->msg.params.len);
}

static void answer_number(const struct request *rq, u64 n)
{
	u8 buf[9] = { 0xcf };

	put_be32(buf + 1, (u32)(n >> 32));
	put_be32(buf + 5, (u32)n);
	answer(rq->msg.msgid, NULL, 0, buf, sizeof(buf));
}

static void sleep_ms(u64 ms)
{
	struct timespec ts = { (time_t)(ms / 1000), (long)(ms % 1000 * NSEC_PER_MSEC) };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void __attribute__((noreturn)) hang(void)
{
	for (;;)
		pause();
}

/* ---- noise ---- */

static void flood(void)
{
	static char line[1024];

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (u32 i = 0; i < MIB / sizeof(line); i++) {
		write_all(1, line, sizeof(line));
		write_all(2, line, sizeof(line));
	}
}

static void control_flood(void)
{
	/* [2, "control.heartbeat", nil] */
	static const char beat[] = "\x93\x02\xb1"
				   "control.heartbeat\xc0";

	for (u32 i = 0; i < MIB / sizeof(beat); i++)
		frame_send(self.control_out, beat, sizeof(beat) - 1);
}

static void ready_send(void)
{
	/* {"pid": u32, "protocol": 1, "features": [...]} */
	static const char head[] = "\x93\x02\xad"
				   "control.ready\x83\xa3"
				   "pid\xce";
	static const char tail[] = "\xa8protocol\x01\xa8"
				   "features";
	u8 buf[128];
	u32 n = sizeof(head) - 1;

	memcpy(buf, head, n);
	put_be32(buf + n, (u32)getpid());
	n += 4;
	memcpy(buf + n, tail, sizeof(tail) - 1);
	n += sizeof(tail) - 1;
	if (self.cancel) {
		memcpy(buf + n,
		       "\x91\xa6"
		       "cancel",
		       8);
		n += 8;
	} else {
		buf[n++] = 0x90;
	}
	frame_send(self.control_out, buf, n);
}

/* A child that holds every descriptor and outlives us. */
static pid_t child_start(bool own_group)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (own_group)
			setsid();
		hang();
	}
	while (own_group && getsid(pid) != pid)
		sleep_ms(1); /* or it would be ended with our group */
	return pid;
}

/* ---- one request ---- */

/* Answers that are not what was asked for. */
static bool break_answer(const struct request *rq, struct urd_span m)
{
	u32 id = rq->msg.msgid;

	if (urd_span_is(m, "foreign")) {
		answer(id + 1, NULL, 0, rq->msg.params.p, rq->msg.params.len);
	} else if (urd_span_is(m, "stale")) {
		answer(self.last, NULL, 0, rq->msg.params.p, rq->msg.params.len);
	} else if (urd_span_is(m, "twice")) {
		answer_params(rq);
		answer_params(rq);
	} else if (urd_span_is(m, "garbage")) {
		text_send(self.task_out, "\xc1\xc1\xc1");
	} else if (urd_span_is(m, "nomessage")) {
		text_send(self.task_out, "\x81\xa1k\xa1v");
	} else if (urd_span_is(m, "trailing")) {
		u8 buf[] = { 0x94, 1, 0xce, 0, 0, 0, 0, 0xc0, 0xc0, 0xc0 };

		put_be32(buf + 3, id);
		frame_send(self.task_out, buf, sizeof(buf));
	} else if (urd_span_is(m, "zero")) {
		write_all(self.task_out, "\0\0\0\0", 4);
	} else if (urd_span_is(m, "oversize")) {
		write_all(self.task_out, "\x7f\xff\xff\xff\x94", 5);
	} else if (urd_span_is(m, "question")) {
		frame_send(self.task_out, "\x94\0\x01\xa1m\xc0", 6);
	} else if (urd_span_is(m, "chunk")) {
		frame_send(self.task_out, "\x93\x03\x01\xc0", 4);
	} else if (urd_span_is(m, "deep")) {
		u8 buf[200];

		memset(buf, 0x91, sizeof(buf));
		buf[sizeof(buf) - 1] = 0xc0;
		answer(id, NULL, 0, buf, sizeof(buf));
	} else {
		return false;
	}
	return true;
}

/* Ways to end, or to stand still, instead of answering. */
static bool fall(const struct request *rq, struct urd_span m)
{
	if (urd_span_is(m, "exit")) {
		_exit((int)rq->number);
	} else if (urd_span_is(m, "signal")) {
		signal((int)rq->number, SIG_DFL);
		kill(getpid(), (int)rq->number);
		hang();
	} else if (urd_span_is(m, "half")) {
		write_all(self.task_out, "\0\0\1\0\x94\x01", 6);
		_exit(0);
	} else if (urd_span_is(m, "halfhang")) {
		write_all(self.task_out, "\0\0\1\0\x94\x01", 6);
		hang();
	} else if (urd_span_is(m, "halfhead")) {
		write_all(self.task_out, "\0\0", 2);
		_exit(0);
	} else if (urd_span_is(m, "hang")) {
		hang();
	} else if (urd_span_is(m, "freeze")) {
		kill(getpid(), SIGSTOP);
		answer_params(rq);
	} else if (urd_span_is(m, "close")) {
		close(self.task_in);
		close(self.task_out);
		hang();
	} else if (urd_span_is(m, "orphan")) {
		child_start(false);
		_exit(5);
	} else if (urd_span_is(m, "complain")) {
		write_all(2, "the last words\n", 15);
		_exit(9);
	} else if (urd_span_is(m, "answerdie")) {
		answer_params(rq);
		_exit(0);
	} else if (urd_span_is(m, "floodexit")) {
		flood();
		_exit(4);
	} else {
		return false;
	}
	return true;
}

/* What is odd, and yet allowed. */
static bool oddity(const struct request *rq, struct urd_span m)
{
	/* [2, "hello", nil] */
	static const char note[] = "\x93\x02\xa5"
				   "hello\xc0";

	if (urd_span_is(m, "notify")) {
		frame_send(self.task_out, note, sizeof(note) - 1);
		frame_send(self.task_out, note, sizeof(note) - 1);
		answer_params(rq);
	} else if (urd_span_is(m, "slow")) {
		sleep_ms(rq->number);
		answer_params(rq);
	} else if (urd_span_is(m, "flood")) {
		flood();
		answer_params(rq);
	} else if (urd_span_is(m, "beat")) {
		control_flood();
		answer_params(rq);
	} else if (urd_span_is(m, "ready")) {
		ready_send();
		answer_params(rq);
	} else if (urd_span_is(m, "retire")) {
		/* [2, "control.retire", nil] */
		text_send(self.control_out, "\x93\x02\xae"
					    "control.retire\xc0");
		answer_params(rq);
	} else if (urd_span_is(m, "child")) {
		answer_number(rq, (u64)child_start(true));
	} else if (urd_span_is(m, "apperr")) {
		/* {"code": -32050, "message": "boom", "data": [1, 2.5, bin]} */
		static const char err[] = "\x83\xa4"
					  "code\xd1\x82\xce\xa7message\xa4"
					  "boom\xa4"
					  "data\x93\x01\xca\x40\x20\x00\x00\xc4\x02\xff\x00";

		answer(rq->msg.msgid, err, sizeof(err) - 1, "\xc0", 1);
	} else if (urd_span_is(m, "strerr")) {
		answer(rq->msg.msgid,
		       "\xa4"
		       "oops",
		       5, "\xc0", 1);
	} else {
		return false;
	}
	return true;
}

static void unknown(const struct request *rq, struct urd_span m)
{
	/* {"code": -32601, "message": method} */
	static const char head[] = "\x82\xa4"
				   "code\xd1\x80\xa7\xa7message\xd9";
	u8 err[sizeof(head) + 256];
	u32 n = sizeof(head) - 1;

	memcpy(err, head, n);
	err[n++] = (u8)m.len;
	memcpy(err + n, m.p, m.len);
	answer(rq->msg.msgid, err, n + m.len, "\xc0", 1);
}

static void serve(u32 len)
{
	struct request rq = { .number = 0 };
	struct urd_span m;
	struct urd_mp p;

	if (urd_rpc_parse(in, len, &rq.msg) || rq.msg.tag != URD_TAG_REQUEST)
		_exit(98);
	m = rq.msg.method;
	p = (struct urd_mp){ rq.msg.params.p, rq.msg.params.p + rq.msg.params.len };
	if (urd_mp_uint(&p, &rq.number))
		rq.number = 0;
	if (urd_span_is(m, "echo"))
		answer_params(&rq);
	else if (urd_span_is(m, "pid"))
		answer_number(&rq, (u64)getpid());
	else if (urd_span_is(m, "size"))
		answer_number(&rq, len);
	else if (!break_answer(&rq, m) && !fall(&rq, m) && !oddity(&rq, m))
		unknown(&rq, m);
}

/*
 * The answer goes out before more than the head of the request was read, and is
 * as long as the request: with both larger than any pipe, somebody must read
 * while he writes, and it is not us.
 */
static bool serve_eager(u32 len)
{
	u32 head = urd_min(len, 32u);
	u32 msgid;
	u8 body[] = { 0xc0, 0xc6, 0, 0, 0, 0 };
	u8 *frame;

	if (!read_all(in, head) || urd_rpc_salvage(in, head, &msgid))
		return false;
	put_be32(body + 2, len);
	memcpy(out + 64, body, sizeof(body));
	memset(out + 64 + sizeof(body), 'e', len);
	frame = urd_rpc_put_response(out + 64, (u32)sizeof(body) + len, msgid, true);
	write_all(self.task_out, frame, (size_t)(out + 64 + sizeof(body) + len - frame));
	return read_all(in + head, len - head);
}

static void loop(bool eager)
{
	u8 head[URD_FRAME_HEADER];

	while (read_all(head, sizeof(head))) {
		u32 len = get_be32(head);

		if (len > URD_REQUEST_MAX)
			_exit(97); /* as a worker of the folk line does */
		if (eager) {
			if (!serve_eager(len))
				return;
			continue;
		}
		if (!read_all(in, len))
			_exit(96);
		serve(len);
	}
}

/* ---- boot ---- */

static int env_fd(const char *name)
{
	const char *s = getenv(name);

	return s ? (int)strtol(s, NULL, 10) : -1;
}

/* Ways to boot that end in no ready message. */
static void boot_badly(const char *how, const char *arg)
{
	if (!strcmp(how, "never"))
		hang();
	if (!strcmp(how, "exit"))
		_exit((int)strtol(arg, NULL, 10));
	if (!strcmp(how, "crash"))
		abort();
	if (!strcmp(how, "missing") && access(arg, F_OK) < 0) {
		write_all(2, "it is not there\n", 16);
		_exit(3);
	}
	if (!strcmp(how, "wrong")) {
		text_send(self.control_out, "\x93\x02\xa5"
					    "hello\xc0");
		hang();
	}
	if (!strcmp(how, "garbage")) {
		write_all(self.control_out, "\0\0\0\1\xc1", 5);
		hang();
	}
	if (!strcmp(how, "nopid")) {
		text_send(self.control_out, "\x93\x02\xad"
					    "control.ready\x80");
		hang();
	}
	if (!strcmp(how, "mute")) {
		close(self.control_out);
		hang();
	}
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	const char *arg = argc > 2 ? argv[2] : "0";

	self.folk = getenv("FOLK_TASK_FD") != NULL;
	self.task_in = env_fd(self.folk ? "FOLK_TASK_FD" : "URD_TASK_IN_FD");
	self.task_out = self.folk ? self.task_in : env_fd("URD_TASK_OUT_FD");
	self.control_out = env_fd(self.folk ? "FOLK_CONTROL_FD" : "URD_CONTROL_OUT_FD");
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(how, "stubborn"))
		signal(SIGTERM, SIG_IGN);
	boot_badly(how, arg);
	if (!strcmp(how, "flood"))
		flood();
	if (!strcmp(how, "slow"))
		sleep_ms(strtoul(arg, NULL, 10));
	if (!strcmp(how, "bytewise"))
		self.step = 1;
	self.cancel = !strcmp(how, "cancel");
	ready_send();
	if (!strcmp(how, "again"))
		ready_send();
	if (!strcmp(how, "deaf"))
		hang();
	loop(!strcmp(how, "eager"));
	if (!strcmp(how, "lastflood"))
		flood();
	if (!strcmp(how, "stubborn"))
		hang();
	return 0;
}
