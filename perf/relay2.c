// SPDX-License-Identifier: MIT
/*
 * The latency floor of a daemon: a blocking relay of one thread between one
 * client at a time on a Unix socket and one worker over pipes.  It reads a whole
 * frame, writes it on, reads the whole answer, writes it back: four system calls
 * per request, no queue, no deadline, no check.  Whoever does all of that and
 * still comes near these numbers has nothing left to save but the wake-ups.
 *
 * Usage: relay2 -s SOCKET [--] WORKER [ARGUMENT...]
 */
#include "perf.h"

/* Move the first frame of @in, which is complete, to @fd. */
static int frame_move(struct perf_buf *in, size_t bytes, int fd)
{
	int ret = perf_write_all(fd, perf_buf_head(in), bytes);

	perf_buf_take(in, bytes);
	return ret;
}

/* Serve one client to its end; only the worker's failure is fatal. */
static void client_serve(int fd, const struct perf_worker *w, struct perf_buf *in,
			 struct perf_buf *back)
{
	ssize_t bytes;

	while ((bytes = perf_frame_read(in, fd)) > 0) {
		errno = 0;
		if (frame_move(in, (size_t)bytes, w->request_fd))
			perf_die("relay2: the worker does not read");
		bytes = perf_frame_read(back, w->answer_fd);
		if (bytes <= 0)
			perf_die("relay2: the worker is gone");
		if (frame_move(back, (size_t)bytes, fd))
			break;
	}
	perf_buf_reset(in);
}

int main(int argc, char **argv)
{
	struct perf_buf in = { 0 }, back = { 0 };
	const char *path = NULL;
	struct perf_worker w;
	int listen_fd, fd, opt;

	while ((opt = getopt(argc, argv, "+s:")) != -1) {
		if (opt != 's')
			return 2;
		path = optarg;
	}
	if (!path || optind == argc)
		perf_die("usage: relay2 -s SOCKET [--] WORKER [ARGUMENT...]");
	signal(SIGPIPE, SIG_IGN);
	perf_worker_start(&w, argv + optind);
	listen_fd = perf_listen(path, 0);
	for (;;) {
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			perf_die("relay2: accept");
		client_serve(fd, &w, &in, &back);
		close(fd);
	}
}
