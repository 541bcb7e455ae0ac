// SPDX-License-Identifier: MIT
/*
 * The worker of the kill storms: it echoes params byte for byte and, with a given
 * probability, does one of the things that a worker must never do.  Which one and
 * when follows from the seed and its pid.  As long as the file CALM exists it
 * behaves, so that one can see whether a pool has got over it.
 *
 * Two methods are special: "shut" answers, then closes the read end of its requests
 * and stays; "pid" answers its pid.  Any other is echoed.
 *
 * Usage: storm [-s SEED] [-f FAULTS_PER_MILLE] [-w WORK_US] [-l LATE_MS] [-k CONCURRENCY]
 *              [-b BOOT_MS] [-c CALM]
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wire/mp.h"
#include "wire/rpc.h"

#define FRAME_MAX (16u << 20)
#define HELD_MAX (1u << 20)
#define FLOOD_LINES 64

static struct {
	int task_in;
	int task_out;
	int control_out;
	u64 random;
	u32 per_mille;
	u32 work_us;
	u32 late_ms;
	u32 concurrency;
	const char *calm;
	u32 last; /* msgid answered before this one */
	bool holds;
	u32 held_msgid; /* an answer that lets another one pass */
	u32 held_len;
} self = { .concurrency = 1, .late_ms = 400 };

static u8 in[FRAME_MAX];
static u8 out[URD_HEADROOM + 1 + FRAME_MAX];
static u8 held[HELD_MAX];

static u32 random_below(u32 n)
{
	self.random = self.random * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(self.random >> 33) % n;
}

static void sleep_us(u64 us)
{
	struct timespec ts = { (time_t)(us / 1000000), (long)(us % 1000000 * NSEC_PER_USEC) };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

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
		ssize_t n = read(self.task_in, p, len);

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

static void answer(u32 msgid, const void *result, u32 len)
{
	u8 *body = out + URD_HEADROOM;
	u8 *frame;

	body[0] = 0xc0;
	memcpy(body + 1, result, len);
	frame = urd_rpc_put_response(body, len + 1, msgid, true);
	write_all(self.task_out, frame, (size_t)(body + len + 1 - frame));
	self.last = msgid;
}

static void held_release(void)
{
	if (self.holds)
		answer(self.held_msgid, held, self.held_len);
	self.holds = false;
}

static bool more_waits(void)
{
	struct pollfd p = { .fd = self.task_in, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && p.revents == POLLIN;
}

/* A concurrent worker answers in any order: at times the next one goes first. */
static void answer_in_some_order(const struct urd_msg *m)
{
	if (self.concurrency > 1 && !self.holds && m->params.len <= HELD_MAX && more_waits()) {
		memcpy(held, m->params.p, m->params.len);
		self.held_len = m->params.len;
		self.held_msgid = m->msgid;
		self.holds = true;
		return;
	}
	answer(m->msgid, m->params.p, m->params.len);
	held_release();
}

/* ---- faults ---- */

static void flood_output(void)
{
	char line[1024];

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (u32 i = 0; i < FLOOD_LINES; i++)
		write_all(1 + (int)(i & 1), line, sizeof(line));
}

static void flood_control(void)
{
	/* [2, "control.heartbeat", nil] */
	static const char beat[] = "\x93\x02\xb1"
				   "control.heartbeat\xc0";

	for (u32 i = 0; i < FLOOD_LINES * 64; i++)
		frame_send(self.control_out, beat, sizeof(beat) - 1);
}

/* Things after which the request may still be answered. */
enum fault {
	FAULT_STOP,
	FAULT_OUTPUT,
	FAULT_CONTROL,
	FAULT_LATE,
	FAULT_TWICE,
	FAULT_FOREIGN,
	FAULT_STALE,
	FAULT_GARBAGE,
	FAULT_HUGE,
	FAULT_ZERO,
	FAULT_HALF,
	FAULT_HALF_HEAD,
	FAULT_EXIT,
	FAULT_ANSWER_EXIT,
	FAULT_KILL,
	FAULTS
};

static void misbehave(const struct urd_msg *m)
{
	switch ((enum fault)random_below(FAULTS)) {
	case FAULT_STOP:
		kill(getpid(), SIGSTOP);
		break;
	case FAULT_OUTPUT:
		flood_output();
		break;
	case FAULT_CONTROL:
		flood_control();
		break;
	case FAULT_LATE:
		sleep_us(self.late_ms * 500ull + random_below(self.late_ms) * 1000ull);
		break;
	case FAULT_TWICE:
		answer(m->msgid, m->params.p, m->params.len);
		break;
	case FAULT_FOREIGN:
		/* of no other request that it has: nobody could tell that from the truth */
		answer(m->msgid + (1u << 30) + random_below(3), m->params.p, m->params.len);
		break;
	case FAULT_STALE:
		answer(self.last, m->params.p, m->params.len);
		break;
	case FAULT_GARBAGE:
		frame_send(self.task_out, "\xc1\xc1\xc1", 3);
		break;
	case FAULT_HUGE:
		write_all(self.task_out, "\x7f\xff\xff\xff\x94", 5);
		break;
	case FAULT_ZERO:
		write_all(self.task_out, "\0\0\0\0", 4);
		break;
	case FAULT_HALF:
		write_all(self.task_out, "\0\0\1\0\x94\x01", 6);
		_exit(0);
	case FAULT_HALF_HEAD:
		write_all(self.task_out, "\0\0", 2);
		_exit(0);
	case FAULT_EXIT:
		_exit(3);
	case FAULT_ANSWER_EXIT:
		answer(m->msgid, m->params.p, m->params.len);
		_exit(0);
	case FAULT_KILL:
	case FAULTS:
		kill(getpid(), SIGKILL);
	}
}

/* ---- one request ---- */

static void serve(u32 len)
{
	u8 number[9] = { 0xcf };
	struct urd_msg m;

	if (urd_rpc_parse(in, len, &m) || m.tag != URD_TAG_REQUEST)
		_exit(98);
	if (self.work_us)
		sleep_us(self.work_us);
	if (urd_span_is(m.method, "shut")) {
		answer(m.msgid, m.params.p, m.params.len);
		close(self.task_in);
		for (;;)
			pause();
	}
	if (urd_span_is(m.method, "pid")) {
		put_be32(number + 5, (u32)getpid());
		answer(m.msgid, number, sizeof(number));
		return;
	}
	if (self.per_mille && random_below(1000) < self.per_mille &&
	    !(self.calm && access(self.calm, F_OK) == 0))
		misbehave(&m);
	answer_in_some_order(&m);
}

static void loop(void)
{
	u8 head[URD_FRAME_HEADER];

	for (;;) {
		u32 len;

		if (!more_waits())
			held_release();
		if (!read_all(head, sizeof(head)))
			return;
		len = get_be32(head);
		if (len > FRAME_MAX || !read_all(in, len))
			_exit(97);
		serve(len);
	}
}

/* ---- boot ---- */

static void ready_send(void)
{
	/* {"pid": u32, "protocol": 1, "concurrency": u16, "features": ["cancel"] or []} */
	static const char head[] = "\x93\x02\xad"
				   "control.ready\x84\xa3"
				   "pid\xce";
	static const char protocol[] = "\xa8protocol\x01\xab"
				       "concurrency\xcd";
	static const char features[] = "\xa8"
				       "features";
	static const char cancel[] = "\x91\xa6"
				     "cancel";
	u8 buf[128];
	u8 *p = buf;

	p = mempcpy(p, head, sizeof(head) - 1);
	put_be32(p, (u32)getpid());
	p = mempcpy(p + 4, protocol, sizeof(protocol) - 1);
	*p++ = (u8)(self.concurrency >> 8);
	*p++ = (u8)self.concurrency;
	p = mempcpy(p, features, sizeof(features) - 1);
	/* every other one says that it can be cancelled, and does not care */
	if (random_below(2))
		p = mempcpy(p, cancel, sizeof(cancel) - 1);
	else
		*p++ = 0x90;
	frame_send(self.control_out, buf, (u32)(p - buf));
}

static u32 number_of(const char *s)
{
	return s ? (u32)strtoul(s, NULL, 10) : 0;
}

int main(int argc, char **argv)
{
	u32 boot_ms = 0;
	int opt;

	while ((opt = getopt(argc, argv, "s:f:w:l:k:b:c:")) != -1) {
		if (opt == 's')
			self.random = number_of(optarg);
		else if (opt == 'f')
			self.per_mille = number_of(optarg);
		else if (opt == 'w')
			self.work_us = number_of(optarg);
		else if (opt == 'l')
			self.late_ms = number_of(optarg);
		else if (opt == 'k')
			self.concurrency = number_of(optarg);
		else if (opt == 'b')
			boot_ms = number_of(optarg);
		else if (opt == 'c')
			self.calm = optarg;
		else
			return 2;
	}
	self.random = self.random << 32 ^ (u64)getpid();
	self.task_in = (int)number_of(getenv("URD_TASK_IN_FD"));
	self.task_out = (int)number_of(getenv("URD_TASK_OUT_FD"));
	self.control_out = (int)number_of(getenv("URD_CONTROL_OUT_FD"));
	if (!self.task_in)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	sleep_us(boot_ms * 1000ull);
	ready_send();
	loop();
	return 0;
}
