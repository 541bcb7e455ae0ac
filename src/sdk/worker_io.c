// SPDX-License-Identifier: MIT
/*
 * The C worker's contact with the outside: descriptors from the environment,
 * SIGTERM, writing, and the control channel.  The descriptors are blocking, so
 * poll(2) goes before each read.  SIGTERM reaches poll through an eventfd: a
 * flag alone would be missed if the signal came just before the wait.
 */
#include "sdk/worker_impl.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <msgpack/pack.h>

#include "wire/mp.h"

/* A signal handler has no argument of ours: these two are per process. */
static int term_event_fd = -1;
static pid_t term_pid;

static void term_handler(int sig)
{
	const u64 one = 1;
	int saved = errno;

	if (getpid() == term_pid) {
		if (write(term_event_fd, &one, sizeof(one)) < 0)
			abort(); /* the counter would have to overflow */
	} else {
		/* A forked child that did not exec: it is not the worker, it just dies. */
		signal(sig, SIG_DFL);
		raise(sig);
	}
	errno = saved;
}

static int term_arm(void)
{
	struct sigaction sa = { .sa_handler = term_handler, .sa_flags = SA_RESTART };
	struct sigaction ign = { .sa_handler = SIG_IGN };

	if (term_event_fd < 0) {
		term_event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (term_event_fd < 0)
			return -errno;
	}
	term_pid = getpid();
	if (sigaction(SIGTERM, &sa, NULL) || sigaction(SIGINT, &ign, NULL) ||
	    sigaction(SIGPIPE, &ign, NULL))
		return -errno;
	return 0;
}

static int fd_from_env(const char *name, int given, int *fd)
{
	const char *text;
	char *end;
	long n;

	if (given >= 0) {
		*fd = given;
		return 0;
	}
	text = getenv(name);
	if (!text || !*text)
		return -ENOENT;
	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || *end || n < 0 || n > INT32_MAX)
		return -EINVAL;
	*fd = (int)n;
	return 0;
}

int urd_worker_attach(struct urd_worker *w, const struct urd_worker_conf *conf)
{
	const struct {
		const char *name;
		int given;
		int *fd;
	} fds[] = {
		{ "URD_TASK_IN_FD", conf->task_in, &w->task_in },
		{ "URD_TASK_OUT_FD", conf->task_out, &w->task_out },
		{ "URD_CONTROL_IN_FD", conf->control_in, &w->control_in },
		{ "URD_CONTROL_OUT_FD", conf->control_out, &w->control_out },
	};
	size_t i;
	int flags;
	int ret;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		ret = fd_from_env(fds[i].name, fds[i].given, fds[i].fd);
		if (ret)
			return ret;
		flags = fcntl(*fds[i].fd, F_GETFD);
		if (flags < 0 || fcntl(*fds[i].fd, F_SETFD, flags | FD_CLOEXEC) < 0)
			return -errno;
	}
	ret = term_arm();
	w->term_fd = term_event_fd;
	return ret;
}

/* Somebody may have made a descriptor non-blocking: wait instead of failing. */
static int wait_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (poll(&p, 1, -1) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

int urd_worker_write(struct urd_worker *w, int fd, const void *head, size_t head_len,
		     const void *body, size_t body_len)
{
	/* writev(2) only reads through it; the type has no room for const */
	struct iovec iov[2] = {
		{ .iov_base = (void *)(uintptr_t)head, .iov_len = head_len },
		{ .iov_base = (void *)(uintptr_t)body, .iov_len = body_len },
	};
	struct iovec *at = iov;
	int left = body_len ? 2 : 1;
	ssize_t n;
	int ret;

	if (w->broken)
		return w->broken;
	while (left) {
		n = writev(fd, at, left);
		if (n < 0) {
			ret = -errno;
			if (ret == -EAGAIN)
				ret = wait_writable(fd);
			if (ret && ret != -EINTR) {
				w->broken = ret;
				return ret;
			}
			continue;
		}
		while (left && (size_t)n >= at->iov_len) {
			n -= (ssize_t)at->iov_len;
			at++;
			left--;
		}
		if (left) {
			at->iov_base = (u8 *)at->iov_base + n;
			at->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int urd_worker_notify(struct urd_worker *w, const char *method, struct urd_span params)
{
	u8 head[64];
	struct urd_out out = { .p = head, .len = URD_FRAME_HEADER, .cap = sizeof(head) };
	msgpack_packer pk;

	msgpack_packer_init(&pk, &out, urd_out_write);
	msgpack_pack_array(&pk, 3);
	msgpack_pack_uint8(&pk, URD_TAG_NOTIFY);
	msgpack_pack_str_with_body(&pk, method, strlen(method));
	urd_assert(!out.full);
	if (params.len > URD_CONTROL_MAX - (out.len - URD_FRAME_HEADER))
		return -EMSGSIZE;
	put_be32(head, out.len - URD_FRAME_HEADER + params.len);
	return urd_worker_write(w, w->control_out, head, out.len, params.p, params.len);
}

static void control_apply(struct urd_worker *w, struct urd_span frame)
{
	struct urd_req *req = &w->req;
	struct urd_msg m;
	struct urd_mp mp;
	u64 msgid;
	u64 n;
	u32 count;

	if (urd_rpc_parse(frame.p, frame.len, &m) || m.tag != URD_TAG_NOTIFY)
		return;
	mp = (struct urd_mp){ m.params.p, m.params.p + m.params.len };
	if (!req->open || urd_mp_array(&mp, &count) || !count || urd_mp_uint(&mp, &msgid) ||
	    msgid != req->msgid)
		return;
	if (urd_span_is(m.method, "control.cancel"))
		req->cancelled = true;
	else if (urd_span_is(m.method, "control.credit") && count > 1 && !urd_mp_uint(&mp, &n))
		req->credit += (u32)urd_min(n, (u64)(UINT32_MAX - req->credit));
}

/* Returns -EPIPE if the stream is of no more use. */
static int control_apply_all(struct urd_worker *w)
{
	struct urd_span frame;
	int ret;

	w->control_fresh = false;
	while ((ret = urd_stream_next(&w->control, URD_CONTROL_MAX, &frame)) > 0)
		control_apply(w, frame);
	if (!ret)
		return 0;
	urd_stream_fini(&w->control);
	w->control_in = -1;
	return -EPIPE;
}

static int control_read(struct urd_worker *w)
{
	if (urd_stream_read(&w->control, w->control_in) > 0) {
		w->control_fresh = true;
		return 0;
	}
	w->control_in = -1; /* the end of requests is told by task_in alone */
	return -EPIPE;
}

int urd_worker_listen(struct urd_worker *w, int timeout_ms)
{
	struct pollfd p = { .fd = w->control_in, .events = POLLIN };
	int ret;

	ret = control_apply_all(w);
	if (ret)
		return ret;
	if (w->control_in < 0)
		return -EPIPE;
	ret = poll(&p, 1, timeout_ms);
	if (ret < 0)
		return errno == EINTR ? 0 : -errno;
	if (!ret)
		return 0;
	ret = control_read(w);
	if (ret)
		return ret;
	ret = control_apply_all(w);
	return ret ? ret : 1;
}

int urd_worker_fill(struct urd_worker *w)
{
	bool clean = !urd_stream_len(&w->task);
	bool glance = clean && (w->term || w->control_fresh);
	struct pollfd p[] = {
		{ .fd = w->task_in, .events = POLLIN },
		{ .fd = w->control_in, .events = POLLIN },
		{ .fd = w->term ? -1 : w->term_fd, .events = POLLIN },
	};
	ssize_t n;

	if (poll(p, ARRAY_SIZE(p), glance ? 0 : -1) < 0)
		return errno == EINTR ? 1 : -errno;
	if (p[2].revents)
		w->term = true;
	if (p[1].revents && !control_read(w) && !p[0].revents)
		return 1;
	if (p[0].revents) {
		n = urd_stream_read(&w->task, w->task_in);
		if (n)
			return n < 0 ? (int)n : 1;
		return clean ? 0 : -EPROTO;
	}
	/*
	 * A cancel is written after its request, on another pipe.  Only when the
	 * control bytes are in hand and no request is there, they are known to be
	 * about the past.
	 */
	if (clean && w->control_fresh && control_apply_all(w))
		return 1;
	return glance && w->term ? 0 : 1;
}
