// SPDX-License-Identifier: MIT
/*
 * The floor under everything: caller and worker with nothing in between, one
 * request outstanding, over a pair of pipes.  What a call in process can reach.
 * Every answer is checked, as load does.
 *
 * Usage: floor1 [-t SECONDS] [-n REQUESTS] [-b BYTES] [--json] [--] WORKER [ARGUMENT...]
 */
#include "perf.h"

#include <getopt.h>

struct floor {
	struct perf_worker worker;
	struct perf_buf in;
	u8 *frame;
	u32 payload_bytes;
	u64 run_ns;
	u64 requests_max;
	bool json;
	struct perf_hist hist;
	struct perf_report report;
};

/* A request whose params are a bin of a pattern that starts with the number of the request. */
static size_t request_make(struct floor *f, u32 seq, size_t *params_at)
{
	u8 bin[5];
	size_t bin_bytes = perf_bin_head(bin, f->payload_bytes);
	size_t n = perf_request_head(f->frame, seq, "echo", bin_bytes + f->payload_bytes);

	*params_at = n;
	memcpy(f->frame + n, bin, bin_bytes);
	n += bin_bytes;
	memcpy(f->frame + n, &seq, urd_min((size_t)f->payload_bytes, sizeof(seq)));
	return n + f->payload_bytes;
}

static bool answer_is_right(const struct floor *f, size_t bytes, u32 seq, const u8 *params,
			    size_t params_bytes)
{
	const u8 *p = perf_buf_head(&f->in) + URD_FRAME_HEADER;
	size_t len = bytes - URD_FRAME_HEADER;
	size_t id_bytes;
	u32 msgid;

	if (len < 4 || p[0] != 0x94 || p[1] != URD_TAG_RESPONSE)
		return false;
	id_bytes = perf_uint_read(p + 2, len - 2, &msgid);
	return id_bytes && msgid == seq && len == 3 + id_bytes + params_bytes &&
	       p[2 + id_bytes] == 0xc0 && !memcmp(p + 3 + id_bytes, params, params_bytes);
}

static void phase_run(struct floor *f, u64 run_ns, u64 requests_max, bool measured)
{
	u64 start = perf_now_ns();
	u64 t0 = start, t1 = start;
	u64 i;

	for (i = 0; i < requests_max && t1 - start < run_ns; i++, t0 = t1) {
		u32 seq = (u32)f->report.requests_all++;
		size_t params_at;
		size_t len = request_make(f, seq, &params_at);
		ssize_t bytes;

		if (perf_write_all(f->worker.request_fd, f->frame, len))
			perf_die("floor1: the worker does not read");
		errno = 0;
		bytes = perf_frame_read(&f->in, f->worker.answer_fd);
		if (bytes <= 0)
			perf_die("floor1: the worker is gone");
		t1 = perf_now_ns();
		if (!answer_is_right(f, (size_t)bytes, seq, f->frame + params_at, len - params_at))
			f->report.mismatches++;
		perf_buf_take(&f->in, (size_t)bytes);
		if (measured)
			perf_hist_add(&f->hist, t1 - t0);
	}
	f->report.elapsed_ns = t1 - start;
	f->report.payload_bytes = i * f->payload_bytes;
}

static void options_read(struct floor *f, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "+t:n:b:", longs, NULL)) != -1) {
		if (opt == 't')
			f->run_ns = perf_seconds(optarg);
		else if (opt == 'n')
			f->requests_max = perf_number(optarg, 1, UINT32_MAX);
		else if (opt == 'b')
			f->payload_bytes = (u32)perf_number(optarg, 0, 8u << 20);
		else if (opt == 'j')
			f->json = true;
		else
			exit(2);
	}
	if (optind == argc)
		perf_die("usage: floor1 [-t SECONDS] [-n REQUESTS] [-b BYTES] [--json] WORKER");
	if (f->requests_max && !f->run_ns)
		f->run_ns = URD_NEVER;
	if (!f->requests_max)
		f->requests_max = UINT64_MAX;
	if (!f->run_ns)
		f->run_ns = NSEC_PER_SEC;
}

int main(int argc, char **argv)
{
	static struct floor f = { .payload_bytes = 64 };
	u64 state = 1;
	size_t i;

	options_read(&f, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	f.frame = malloc(f.payload_bytes + 128u);
	if (!f.frame)
		perf_die("floor1: no memory");
	for (i = 0; i < f.payload_bytes + 128u; i++)
		f.frame[i] = (u8)perf_random(&state);
	f.report.hist = &f.hist;
	perf_worker_start(&f.worker, argv + optind);
	phase_run(&f, 50 * NSEC_PER_MSEC, UINT64_MAX, false);
	phase_run(&f, f.run_ns, f.requests_max, true);
	return perf_report_print(&f.report, f.json);
}
