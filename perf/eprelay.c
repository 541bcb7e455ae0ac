// SPDX-License-Identifier: MIT
/*
 * The relay that a good engineer writes with epoll in a day, and the one that urd
 * has to beat: many clients with pipelining, N workers with K requests in flight
 * each, a fair queue, replies of one loop to one client in one write, large
 * answers passed on without a second copy.  Requests wait in the input buffer of
 * their client, so queueing costs nothing.  Message ids pass unchanged: a worker
 * answers in order, hence the order of requests tells whose answer it is.
 * It has no deadlines, no supervision and no checks: a dead worker ends it.
 *
 * Usage: eprelay -s SOCKET [-w WORKERS] [-k IN_FLIGHT] [--] WORKER [ARGUMENT...]
 */
#include "perf.h"

#include <sys/epoll.h>

#define CLIENTS_MAX 1024u
#define WORKERS_MAX 256u
#define DEPTH_MAX 64u
#define EVENTS_MAX 128
/* a client with this many bytes of waiting requests is not read from */
#define CLIENT_IN_MAX (256u << 10)
/* frames from this size on are written straight from where they were read to */
#define DIRECT_MIN (16u << 10)

enum kind { KIND_LISTENER, KIND_CLIENT, KIND_WORKER_IN, KIND_WORKER_OUT };

struct client {
	int fd;
	u32 gen;
	u32 interest; /* what epoll was told */
	bool open;
	bool queued;
	bool dirty;
	bool blocked;
	struct perf_buf in;
	struct perf_buf out;
};

/* whose request it was */
struct route {
	u32 client;
	u32 gen;
};

struct worker {
	struct perf_worker proc;
	bool blocked;
	bool dirty;
	u32 head; /* of routes */
	u32 in_flight;
	struct route routes[DEPTH_MAX];
	struct perf_buf in;
	struct perf_buf out;
};

struct relay {
	int ep;
	int listen_fd;
	u32 depth;
	u32 workers_nr;
	struct worker workers[WORKERS_MAX];
	struct client clients[CLIENTS_MAX];
	u32 queue[CLIENTS_MAX]; /* ring of clients with a complete request, each once */
	u32 queue_head;
	u32 queue_nr;
	u32 dirty[CLIENTS_MAX];
	u32 dirty_nr;
};

static void ep_set(const struct relay *r, int op, int fd, u32 events, enum kind kind, u32 i)
{
	struct epoll_event ev = { .events = events, .data.u64 = (u64)kind << 32 | i };

	if (epoll_ctl(r->ep, op, fd, &ev))
		perf_die("eprelay: epoll_ctl");
}

static void client_interest(struct relay *r, struct client *c)
{
	bool full = perf_buf_len(&c->in) >= CLIENT_IN_MAX && perf_frame_ready(&c->in);
	u32 want = (full ? 0 : (u32)EPOLLIN) | (c->blocked ? (u32)EPOLLOUT : 0);

	if (!c->open || want == c->interest)
		return;
	c->interest = want;
	ep_set(r, EPOLL_CTL_MOD, c->fd, want, KIND_CLIENT, (u32)(c - r->clients));
}

/* A queue entry may outlive the client; `queued' keeps it the only one of its slot. */
static void client_close(struct client *c)
{
	close(c->fd);
	c->open = false;
	c->blocked = false;
	c->gen++;
	perf_buf_reset(&c->in);
	perf_buf_reset(&c->out);
}

static void client_queue(struct relay *r, struct client *c)
{
	if (c->queued || !perf_frame_ready(&c->in))
		return;
	c->queued = true;
	r->queue[(r->queue_head + r->queue_nr++) % CLIENTS_MAX] = (u32)(c - r->clients);
}

static void client_accept(struct relay *r)
{
	int fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	u32 i = 0;

	if (fd < 0)
		return;
	while (i < CLIENTS_MAX && r->clients[i].open)
		i++;
	if (i == CLIENTS_MAX) {
		close(fd);
		return;
	}
	r->clients[i].fd = fd;
	r->clients[i].open = true;
	r->clients[i].interest = EPOLLIN;
	ep_set(r, EPOLL_CTL_ADD, fd, EPOLLIN, KIND_CLIENT, i);
}

/*
 * Write what is there.  Return: bytes written, possibly 0 if the peer does not
 * take any now, -errno.
 */
static ssize_t fd_write(int fd, const u8 *p, size_t len)
{
	ssize_t n = len ? write(fd, p, len) : 0;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return n;
}

static void client_flush(struct relay *r, struct client *c)
{
	ssize_t n;

	if (!c->open)
		return;
	n = fd_write(c->fd, perf_buf_head(&c->out), perf_buf_len(&c->out));
	if (n < 0) {
		client_close(c);
		return;
	}
	perf_buf_take(&c->out, (size_t)n);
	c->blocked = perf_buf_len(&c->out);
	client_interest(r, c);
}

static void client_reply(struct relay *r, struct client *c, const u8 *frame, size_t bytes)
{
	ssize_t n = 0;

	if (bytes >= DIRECT_MIN && !perf_buf_len(&c->out)) {
		n = fd_write(c->fd, frame, bytes);
		if (n < 0) {
			client_close(c);
			return;
		}
	}
	if ((size_t)n == bytes)
		return;
	perf_buf_add(&c->out, frame + n, bytes - (size_t)n);
	if (!c->dirty) {
		c->dirty = true;
		r->dirty[r->dirty_nr++] = (u32)(c - r->clients);
	}
}

static void worker_flush(struct relay *r, struct worker *w)
{
	ssize_t n = fd_write(w->proc.request_fd, perf_buf_head(&w->out), perf_buf_len(&w->out));
	bool blocked;

	if (n < 0)
		perf_die("eprelay: a worker does not read");
	perf_buf_take(&w->out, (size_t)n);
	blocked = perf_buf_len(&w->out);
	w->dirty = false;
	if (blocked != w->blocked)
		ep_set(r, EPOLL_CTL_MOD, w->proc.request_fd, blocked ? (u32)EPOLLOUT : 0,
		       KIND_WORKER_OUT, (u32)(w - r->workers));
	w->blocked = blocked;
}

/*
 * With one in flight a request goes out at once, so that the worker wakes while
 * we go on; with more the small ones of a loop go out together.
 */
static void worker_send(struct relay *r, struct worker *w, const u8 *frame, size_t bytes)
{
	ssize_t n = 0;

	if (!perf_buf_len(&w->out) && (r->depth == 1 || bytes >= DIRECT_MIN)) {
		n = fd_write(w->proc.request_fd, frame, bytes);
		if (n < 0)
			perf_die("eprelay: a worker does not read");
	}
	if ((size_t)n < bytes) {
		perf_buf_add(&w->out, frame + n, bytes - (size_t)n);
		w->dirty = true;
	}
}

static struct worker *worker_pick(struct relay *r)
{
	struct worker *best = NULL;
	u32 i;

	for (i = 0; i < r->workers_nr; i++)
		if (r->workers[i].in_flight < (best ? best->in_flight : r->depth))
			best = &r->workers[i];
	return best;
}

static void queue_dispatch(struct relay *r)
{
	while (r->queue_nr) {
		struct worker *w = worker_pick(r);
		struct client *c = &r->clients[r->queue[r->queue_head]];
		size_t bytes;

		if (!w)
			return;
		r->queue_head = (r->queue_head + 1) % CLIENTS_MAX;
		r->queue_nr--;
		c->queued = false;
		bytes = perf_frame_ready(&c->in);
		if (!bytes)
			continue;
		w->routes[(w->head + w->in_flight++) % DEPTH_MAX] =
			(struct route){ .client = (u32)(c - r->clients), .gen = c->gen };
		worker_send(r, w, perf_buf_head(&c->in), bytes);
		perf_buf_take(&c->in, bytes);
		client_queue(r, c);
		client_interest(r, c);
	}
}

static void on_client(struct relay *r, struct client *c, u32 events)
{
	ssize_t n;

	if (!c->open)
		return;
	if (events & EPOLLOUT)
		client_flush(r, c);
	if (!c->open || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = events & EPOLLIN ? perf_buf_read(&c->in, c->fd) : 0;
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		client_close(c);
		return;
	}
	client_queue(r, c);
	client_interest(r, c);
	queue_dispatch(r);
}

static void on_worker(struct relay *r, struct worker *w)
{
	ssize_t n = perf_buf_read(&w->in, w->proc.answer_fd);
	size_t bytes;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		errno = (int)-n;
		perf_die("eprelay: a worker is gone");
	}
	while ((bytes = perf_frame_ready(&w->in))) {
		struct route route = w->routes[w->head];
		struct client *c = &r->clients[route.client];

		errno = 0;
		if (!w->in_flight)
			perf_die("eprelay: an answer to nothing");
		w->head = (w->head + 1) % DEPTH_MAX;
		w->in_flight--;
		if (c->open && c->gen == route.gen)
			client_reply(r, c, perf_buf_head(&w->in), bytes);
		perf_buf_take(&w->in, bytes);
	}
	queue_dispatch(r);
}

static void loop_once(struct relay *r)
{
	struct epoll_event ev[EVENTS_MAX];
	int n = epoll_wait(r->ep, ev, EVENTS_MAX, -1);
	u32 i;
	int e;

	for (e = 0; e < n; e++) {
		u32 at = (u32)ev[e].data.u64;

		switch ((enum kind)(ev[e].data.u64 >> 32)) {
		case KIND_LISTENER:
			client_accept(r);
			break;
		case KIND_CLIENT:
			on_client(r, &r->clients[at], ev[e].events);
			break;
		case KIND_WORKER_IN:
			on_worker(r, &r->workers[at]);
			break;
		case KIND_WORKER_OUT:
			worker_flush(r, &r->workers[at]);
			break;
		}
	}
	for (i = 0; i < r->workers_nr; i++)
		if (r->workers[i].dirty)
			worker_flush(r, &r->workers[i]);
	for (i = 0; i < r->dirty_nr; i++) {
		struct client *c = &r->clients[r->dirty[i]];

		c->dirty = false;
		client_flush(r, c);
	}
	r->dirty_nr = 0;
}

static void workers_start(struct relay *r, char *const argv[])
{
	u32 i;

	for (i = 0; i < r->workers_nr; i++) {
		struct perf_worker *p = &r->workers[i].proc;

		perf_worker_start(p, argv);
		if (fcntl(p->request_fd, F_SETFL, O_NONBLOCK) ||
		    fcntl(p->answer_fd, F_SETFL, O_NONBLOCK))
			perf_die("eprelay: O_NONBLOCK");
		ep_set(r, EPOLL_CTL_ADD, p->answer_fd, EPOLLIN, KIND_WORKER_IN, i);
		ep_set(r, EPOLL_CTL_ADD, p->request_fd, 0, KIND_WORKER_OUT, i);
	}
}

int main(int argc, char **argv)
{
	static struct relay r = { .depth = 1, .workers_nr = 2 };
	const char *path = NULL;
	int opt;

	while ((opt = getopt(argc, argv, "+s:w:k:")) != -1) {
		if (opt == 's')
			path = optarg;
		else if (opt == 'w')
			r.workers_nr = (u32)perf_number(optarg, 1, WORKERS_MAX);
		else if (opt == 'k')
			r.depth = (u32)perf_number(optarg, 1, DEPTH_MAX);
		else
			return 2;
	}
	if (!path || optind == argc)
		perf_die("usage: eprelay -s SOCKET [-w WORKERS] [-k IN_FLIGHT] [--] WORKER");
	signal(SIGPIPE, SIG_IGN);
	r.ep = epoll_create1(EPOLL_CLOEXEC);
	workers_start(&r, argv + optind);
	r.listen_fd = perf_listen(path, SOCK_NONBLOCK);
	ep_set(&r, EPOLL_CTL_ADD, r.listen_fd, EPOLLIN, KIND_LISTENER, 0);
	for (;;)
		loop_once(&r);
}
