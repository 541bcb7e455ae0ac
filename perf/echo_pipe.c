// SPDX-License-Identifier: MIT
/*
 * The worker of all measurements: a blocking echo that speaks the native worker
 * protocol by hand, without any SDK, at the least cost a worker can have.  An
 * answer is made in place, in front of the params of its request, and goes out
 * without a copy; the answers to all requests that one read brought go out in
 * one write.  Any method is echoed.
 *
 * Usage: echo_pipe [-k CONCURRENCY]
 */
#include "perf.h"

#include <sys/uio.h>

/* answers of one write; IOV_MAX is 1024 */
#define BATCH_MAX 256

static volatile sig_atomic_t stopping;

struct echo {
	int in_fd;
	int out_fd;
	struct perf_buf in;
	struct iovec answers[BATCH_MAX];
	int answers_nr;
};

static void on_sigterm(int sig)
{
	(void)sig;
	stopping = 1;
}

static int fd_from_env(const char *name, int fallback)
{
	const char *s = getenv(name);

	return s ? (int)perf_number(s, 0, 1023) : fallback;
}

/* Bytes of a MessagePack string with its header; 0 if it is none or is cut off. */
static size_t str_bytes(const u8 *p, size_t len)
{
	size_t bytes = 0;

	if (len >= 1 && (p[0] & 0xe0) == 0xa0)
		bytes = 1 + (size_t)(p[0] & 0x1f);
	else if (len >= 2 && p[0] == 0xd9)
		bytes = 2 + (size_t)p[1];
	else if (len >= 3 && p[0] == 0xda)
		bytes = 3 + ((size_t)p[1] << 8 | p[2]);
	else if (len >= 5 && p[0] == 0xdb)
		bytes = 5 + (size_t)get_be32(p + 1);
	return bytes <= len ? bytes : 0;
}

/*
 * Turn the request frame into its answer.  What the method occupied, a byte at
 * least, is room enough for the nil of "no error", so the params stay in place.
 */
static struct iovec frame_answer(u8 *frame, size_t bytes)
{
	u8 *p = frame + URD_FRAME_HEADER;
	size_t len = bytes - URD_FRAME_HEADER;
	size_t id_bytes, method_bytes;
	u8 id[5];
	u32 msgid;
	u8 *out;

	errno = 0;
	if (len < 5 || p[0] != 0x94 || p[1] != URD_TAG_REQUEST)
		perf_die("echo_pipe: not a request of four elements");
	id_bytes = perf_uint_read(p + 2, len - 2, &msgid);
	method_bytes = id_bytes ? str_bytes(p + 2 + id_bytes, len - 2 - id_bytes) : 0;
	if (!method_bytes || 2 + id_bytes + method_bytes >= len)
		perf_die("echo_pipe: a request without id, method or params");
	memcpy(id, p + 2, id_bytes);
	out = p + 2 + id_bytes + method_bytes - (3 + id_bytes) - URD_FRAME_HEADER;
	len = bytes - (size_t)(out - frame) - URD_FRAME_HEADER;
	put_be32(out, (u32)len);
	out[4] = 0x94;
	out[5] = URD_TAG_RESPONSE;
	memcpy(out + 6, id, id_bytes);
	out[6 + id_bytes] = 0xc0;
	return (struct iovec){ .iov_base = out, .iov_len = len + URD_FRAME_HEADER };
}

static void answers_write(struct echo *e)
{
	struct iovec *v = e->answers;
	int nr = e->answers_nr;

	while (nr) {
		ssize_t n = nr == 1 ? write(e->out_fd, v->iov_base, v->iov_len) :
				      writev(e->out_fd, v, nr);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			exit(errno == EPIPE ? 0 : 1);
		for (; nr && (size_t)n >= v->iov_len; v++, nr--)
			n -= (ssize_t)v->iov_len;
		if (nr) {
			v->iov_base = (u8 *)v->iov_base + n;
			v->iov_len -= (size_t)n;
		}
	}
	e->answers_nr = 0;
}

static void requests_answer(struct echo *e)
{
	size_t bytes;

	while ((bytes = perf_frame_ready(&e->in))) {
		e->answers[e->answers_nr++] = frame_answer(perf_buf_head(&e->in), bytes);
		/* the bytes stay where they are until the next read */
		e->in.start += bytes;
		if (e->answers_nr == BATCH_MAX)
			answers_write(e);
	}
	answers_write(e);
	perf_buf_take(&e->in, 0);
}

static void ready_send(int fd, u32 concurrency)
{
	static const char method[] = "control.ready";
	u8 frame[128];
	size_t n = URD_FRAME_HEADER;

	frame[n++] = 0x93;
	frame[n++] = URD_TAG_NOTIFY;
	frame[n++] = (u8)(0xa0 | (sizeof(method) - 1));
	memcpy(frame + n, method, sizeof(method) - 1);
	n += sizeof(method) - 1;
	frame[n++] = concurrency ? 0x83 : 0x82;
	memcpy(frame + n, "\xa3pid\xce", 5);
	put_be32(frame + n + 5, (u32)getpid());
	n += 9;
	memcpy(frame + n, "\xa8protocol\x01", 10);
	n += 10;
	if (concurrency) {
		memcpy(frame + n,
		       "\xab"
		       "concurrency\xce",
		       13);
		put_be32(frame + n + 13, concurrency);
		n += 17;
	}
	put_be32(frame, (u32)(n - URD_FRAME_HEADER));
	if (perf_write_all(fd, frame, n))
		perf_die("echo_pipe: cannot say that it is ready");
}

static void signals_set(void)
{
	struct sigaction term = { .sa_handler = on_sigterm };

	/* without SA_RESTART, so that an idle worker leaves its read */
	sigaction(SIGTERM, &term, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	static struct echo e;
	u32 concurrency = 0;
	int opt;

	while ((opt = getopt(argc, argv, "k:")) != -1) {
		if (opt != 'k')
			return 2;
		concurrency = (u32)perf_number(optarg, 1, 1024);
	}
	signals_set();
	e.in_fd = fd_from_env("URD_TASK_IN_FD", 3);
	e.out_fd = fd_from_env("URD_TASK_OUT_FD", 4);
	ready_send(fd_from_env("URD_CONTROL_OUT_FD", 6), concurrency);
	for (;;) {
		ssize_t n;

		if (stopping && !perf_buf_len(&e.in))
			return 0;
		n = perf_buf_read(&e.in, e.in_fd);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n < 0 || perf_buf_len(&e.in) ? 1 : 0;
		requests_answer(&e);
	}
}
