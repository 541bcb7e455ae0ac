// SPDX-License-Identifier: MIT
/*
 * The load generator: framed MessagePack-RPC over a Unix socket, closed loop, any
 * number of connections with any number of requests outstanding on each, in one
 * thread.  It believes nothing: each answer must carry the id of an outstanding
 * request and, byte for byte, the payload that was sent with it.
 *
 * A latency begins when the request could have been sent, that is when its slot
 * became free, and so includes the time that a full socket kept it waiting.
 * It reads whenever there is something to read, also while it is writing, hence
 * it cannot deadlock with a daemon that waits for its answers to be taken.
 *
 * Exit status: 0 all answers right, 1 some wrong, failed or missing, 2 could not run.
 */
#include "perf.h"

#include <getopt.h>
#include <sys/epoll.h>

#define CONNECTIONS_MAX 4096u
#define PIPELINE_MAX 4096u
#define PAYLOAD_MAX (8u << 20)
#define EVENTS_MAX 64
/* frames are made until this many bytes wait for the socket */
#define OUT_MAX (64u << 10)
/* the payload's pattern starts at one of this many places of the pool */
#define OFFSETS 65536u
#define SIZES 4096u

struct slot {
	u64 free_ns; /* since when it may send */
	u64 seq;
	u32 msgid;
	u32 len;
	bool busy;
};

struct conn {
	int fd;
	bool blocked;
	u32 ids;
	u32 *idle; /* ring of slots that may send, the longest waiting first */
	u32 idle_head;
	u32 idle_nr;
	struct slot *slots;
	struct perf_buf in;
	struct perf_buf out;
};

struct load {
	const char *path;
	const char *method;
	u32 connections;
	u32 pipeline;
	u32 slot_mask;
	u64 requests_max;
	u64 run_ns;
	u64 warmup_ns;
	u64 stall_ns;
	u32 len_min;
	u32 len_max;
	u64 seed;
	bool json;

	int ep;
	struct conn *conns;
	u32 open_nr;
	u8 *pool;
	u32 sizes[SIZES];
	u64 seq;
	u64 outstanding;
	bool faulty; /* one wrong answer was shown */
	/* of the phase */
	bool issuing;
	u64 issue_left;
	u64 issue_until_ns;
	struct perf_hist hist;
	struct perf_report report;
};

static void *xcalloc(size_t nr, size_t bytes)
{
	void *p = calloc(nr, bytes);

	if (!p)
		perf_die("load: no memory");
	return p;
}

/*
 * Sizes spaced evenly on a logarithmic scale.  The step is found by bisection,
 * which spares us the mathematics library.
 */
static void sizes_make(struct load *l)
{
	double lo = 1, hi = 1.1, want = (double)l->len_max / (double)urd_max(l->len_min, 1u);
	double v = (double)l->len_min;
	u32 i, round;

	for (round = 0; round < 64; round++) {
		double mid = (lo + hi) / 2, p = 1;

		for (i = 1; i < SIZES; i++)
			p *= mid;
		if (p < want)
			lo = mid;
		else
			hi = mid;
	}
	for (i = 0; i < SIZES; i++, v *= lo)
		l->sizes[i] = urd_min((u32)(v + 0.5), l->len_max);
}

static const u8 *pattern_of(const struct load *l, u64 seq)
{
	return l->pool + (seq * 0x9e3779b97f4a7c15ull >> 48) % OFFSETS;
}

/* Show the first wrong answer: with it at hand the rest needs no guess. */
static void fault_show(struct load *l, const char *what, const u8 *p, size_t len)
{
	size_t i;

	if (l->faulty)
		return;
	l->faulty = true;
	fprintf(stderr, "load: %s, %zu bytes:", what, len);
	for (i = 0; i < urd_min(len, (size_t)96); i++)
		fprintf(stderr, p[i] > 0x20 && p[i] < 0x7f ? " %c" : " %02x", p[i]);
	fputc('\n', stderr);
}

static void conn_close(struct load *l, struct conn *c)
{
	u32 i;

	close(c->fd);
	c->fd = -1;
	l->open_nr--;
	l->report.errors++;
	for (i = 0; i < l->pipeline; i++) {
		if (!c->slots[i].busy)
			continue;
		c->slots[i].busy = false;
		l->outstanding--;
		l->report.missing++;
	}
}

static void request_make(struct load *l, struct conn *c)
{
	u32 at = c->idle[c->idle_head & l->slot_mask];
	struct slot *s = &c->slots[at];
	size_t n, bin_bytes;
	u8 bin[5];
	u8 *p;

	c->idle_head++;
	c->idle_nr--;
	s->busy = true;
	s->seq = l->seq++;
	s->len = l->sizes[perf_random(&l->seed) % SIZES];
	/* the low bits find the slot again, the others tell this request from its predecessors */
	s->msgid = c->ids++ * (l->slot_mask + 1) + at;
	l->outstanding++;
	l->issue_left--;

	bin_bytes = perf_bin_head(bin, s->len);
	perf_buf_reserve(&c->out, 128 + (size_t)s->len);
	p = c->out.p + c->out.end;
	n = perf_request_head(p, s->msgid, l->method, bin_bytes + s->len);
	memcpy(p + n, bin, bin_bytes);
	n += bin_bytes;
	memcpy(p + n, pattern_of(l, s->seq), s->len);
	memcpy(p + n, &s->seq, urd_min((size_t)s->len, sizeof(s->seq)));
	c->out.end += n + s->len;
}

/* Make and write requests until none may be made or the socket is full. */
static void conn_send(struct load *l, struct conn *c)
{
	bool was_blocked = c->blocked;

	for (;;) {
		ssize_t n;

		while (l->issuing && l->issue_left && c->idle_nr && perf_buf_len(&c->out) < OUT_MAX)
			request_make(l, c);
		c->blocked = false;
		if (!perf_buf_len(&c->out))
			break;
		n = send(c->fd, perf_buf_head(&c->out), perf_buf_len(&c->out), MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			conn_close(l, c);
			return;
		}
		perf_buf_take(&c->out, n < 0 ? 0 : (size_t)n);
		c->blocked = perf_buf_len(&c->out);
		if (c->blocked)
			break;
	}
	if (c->blocked != was_blocked) {
		struct epoll_event ev = { .events = (u32)EPOLLIN | (c->blocked ? (u32)EPOLLOUT : 0),
					  .data.ptr = c };

		epoll_ctl(l->ep, EPOLL_CTL_MOD, c->fd, &ev);
	}
}

static bool payload_is_right(const struct load *l, const struct slot *s, const u8 *p, size_t len)
{
	size_t seq_bytes = urd_min((size_t)s->len, sizeof(s->seq));
	u8 bin[5];
	size_t bin_bytes = perf_bin_head(bin, s->len);

	if (len != bin_bytes + s->len || memcmp(p, bin, bin_bytes))
		return false;
	p += bin_bytes;
	return !memcmp(p, &s->seq, seq_bytes) &&
	       !memcmp(p + seq_bytes, pattern_of(l, s->seq) + seq_bytes, s->len - seq_bytes);
}

static void answer_take(struct load *l, struct conn *c, const u8 *p, size_t len, u64 now)
{
	size_t id_bytes = 0;
	struct slot *s;
	u32 msgid = 0;

	if (len >= 5 && p[0] == 0x94 && p[1] == URD_TAG_RESPONSE)
		id_bytes = perf_uint_read(p + 2, len - 4, &msgid);
	s = &c->slots[msgid & l->slot_mask];
	if (!id_bytes || (msgid & l->slot_mask) >= l->pipeline || !s->busy || s->msgid != msgid) {
		l->report.mismatches++;
		fault_show(l, "an answer to nothing", p, len);
		return;
	}
	if (p[2 + id_bytes] != 0xc0) {
		l->report.errors++;
		fault_show(l, "an error", p, len);
	} else if (!payload_is_right(l, s, p + 3 + id_bytes, len - 3 - id_bytes)) {
		l->report.mismatches++;
		fault_show(l, "a wrong payload", p, len);
	} else {
		perf_hist_add(&l->hist, now - s->free_ns);
		l->report.payload_bytes += s->len;
	}
	s->busy = false;
	s->free_ns = now;
	c->idle[(c->idle_head + c->idle_nr++) & l->slot_mask] = msgid & l->slot_mask;
	l->outstanding--;
	l->report.requests_all++;
}

/* Return: did something arrive? */
static bool conn_receive(struct load *l, struct conn *c, u64 *now)
{
	ssize_t n = perf_buf_read(&c->in, c->fd);
	size_t bytes;

	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n <= 0) {
		conn_close(l, c);
		return false;
	}
	*now = perf_now_ns();
	if (*now >= l->issue_until_ns)
		l->issuing = false;
	while ((bytes = perf_frame_ready(&c->in))) {
		answer_take(l, c, perf_buf_head(&c->in) + URD_FRAME_HEADER,
			    bytes - URD_FRAME_HEADER, *now);
		perf_buf_take(&c->in, bytes);
	}
	return true;
}

/*
 * Issue requests for a time or up to a number, then wait for the last answer.
 * What does not arrive within the stall time is missing.
 */
static void phase_run(struct load *l, u64 run_ns, u64 requests_max)
{
	u64 start = perf_now_ns();
	u64 now = start, last = start;
	struct epoll_event ev[EVENTS_MAX];
	u32 i, s;
	int n, e;

	l->issuing = true;
	l->issue_left = requests_max;
	l->issue_until_ns = urd_ns_add(start, run_ns);
	for (i = 0; i < l->connections; i++) {
		for (s = 0; s < l->pipeline; s++)
			l->conns[i].slots[s].free_ns = start;
		if (l->conns[i].fd >= 0)
			conn_send(l, &l->conns[i]);
	}
	while (l->outstanding || (l->issuing && l->issue_left && l->open_nr)) {
		n = epoll_wait(l->ep, ev, EVENTS_MAX, (int)(l->stall_ns / NSEC_PER_MSEC));
		if (!n)
			break;
		for (e = 0; e < n; e++) {
			struct conn *c = ev[e].data.ptr;

			if (ev[e].events & ~(u32)EPOLLOUT && conn_receive(l, c, &now))
				last = now;
			if (c->fd >= 0)
				conn_send(l, c);
		}
	}
	l->report.elapsed_ns = last - start;
	l->report.missing += l->outstanding;
}

static void conns_open(struct load *l)
{
	struct sockaddr_un sun;
	u32 i, s;

	perf_unix_address(&sun, l->path);
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	l->conns = xcalloc(l->connections, sizeof(*l->conns));
	for (i = 0; i < l->connections; i++) {
		struct conn *c = &l->conns[i];
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

		c->slots = xcalloc(l->slot_mask + 1, sizeof(*c->slots));
		c->idle = xcalloc(l->slot_mask + 1, sizeof(*c->idle));
		for (s = 0; s < l->pipeline; s++)
			c->idle[c->idle_nr++] = s;
		c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&sun, sizeof(sun)))
			perf_die("load: cannot connect to %s", l->path);
		if (fcntl(c->fd, F_SETFL, O_NONBLOCK) ||
		    epoll_ctl(l->ep, EPOLL_CTL_ADD, c->fd, &ev))
			perf_die("load: epoll");
		l->open_nr++;
	}
}

static void payload_read(struct load *l, const char *s)
{
	const char *colon = strchr(s, ':');
	char min[24];

	if (!colon) {
		l->len_min = l->len_max = (u32)perf_number(s, 0, PAYLOAD_MAX);
		return;
	}
	snprintf(min, sizeof(min), "%.*s", (int)(colon - s), s);
	l->len_min = (u32)perf_number(min, 1, PAYLOAD_MAX);
	l->len_max = (u32)perf_number(colon + 1, l->len_min, PAYLOAD_MAX);
}

__attribute__((noreturn)) static void usage(void)
{
	fputs("usage: load -s SOCKET [options]\n"
	      "  -m METHOD       method to call (echo)\n"
	      "  -c CONNECTIONS  connections (1)\n"
	      "  -p REQUESTS     outstanding requests per connection (1)\n"
	      "  -n REQUESTS     stop after so many measured requests\n"
	      "  -t SECONDS      stop after so long (1, if there is no -n)\n"
	      "  -b BYTES        payload, or MIN:MAX for log-uniform sizes (64)\n"
	      "  -w SECONDS      warm-up that is checked but not counted (0.1)\n"
	      "  -r SEED         of sizes and pattern (1)\n"
	      "  -T SECONDS      silence after which answers count as missing (30)\n"
	      "  --json          print one line of JSON\n",
	      stderr);
	exit(2);
}

static void option_set(struct load *l, int opt)
{
	switch (opt) {
	case 's':
		l->path = optarg;
		break;
	case 'm':
		l->method = optarg;
		break;
	case 'c':
		l->connections = (u32)perf_number(optarg, 1, CONNECTIONS_MAX);
		break;
	case 'p':
		l->pipeline = (u32)perf_number(optarg, 1, PIPELINE_MAX);
		break;
	case 'n':
		l->requests_max = perf_number(optarg, 1, UINT64_MAX - 1);
		break;
	case 't':
		l->run_ns = perf_seconds(optarg);
		break;
	case 'b':
		payload_read(l, optarg);
		break;
	case 'w':
		l->warmup_ns = perf_seconds(optarg);
		break;
	case 'r':
		l->seed = perf_number(optarg, 0, UINT64_MAX);
		break;
	case 'T':
		l->stall_ns = perf_seconds(optarg);
		break;
	case 'j':
		l->json = true;
		break;
	default:
		usage();
	}
}

static void options_read(struct load *l, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "s:m:c:p:n:t:b:w:r:T:", longs, NULL)) != -1)
		option_set(l, opt);
	if (!l->path || optind != argc || !l->method[0] || strlen(l->method) > 31)
		usage();
	if (!l->run_ns)
		l->run_ns = l->requests_max ? URD_NEVER : NSEC_PER_SEC;
	if (!l->requests_max)
		l->requests_max = UINT64_MAX;
	/* a power of two, so that message ids wrap without a seam */
	while (l->slot_mask < l->pipeline - 1)
		l->slot_mask = l->slot_mask << 1 | 1;
}

int main(int argc, char **argv)
{
	static struct load l = {
		.method = "echo",
		.connections = 1,
		.pipeline = 1,
		.len_min = 64,
		.len_max = 64,
		.seed = 1,
		.warmup_ns = 100 * NSEC_PER_MSEC,
		.stall_ns = 30 * NSEC_PER_SEC,
	};
	size_t i, pool_bytes;

	options_read(&l, argc, argv);
	sizes_make(&l);
	pool_bytes = OFFSETS + (size_t)l.len_max;
	l.pool = xcalloc(1, pool_bytes);
	for (i = 0; i < pool_bytes; i++)
		l.pool[i] = (u8)perf_random(&l.seed);
	l.report.hist = &l.hist;
	conns_open(&l);
	if (l.warmup_ns)
		phase_run(&l, l.warmup_ns, UINT64_MAX);
	memset(&l.hist, 0, sizeof(l.hist));
	l.report.payload_bytes = 0;
	if (l.open_nr && !l.report.missing)
		phase_run(&l, l.run_ns, l.requests_max);
	return perf_report_print(&l.report, l.json);
}
