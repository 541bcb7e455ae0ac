// SPDX-License-Identifier: MIT
/*
 * The C client's blocking calls: one request, and waiting until its answer is
 * there.  What comes for others meanwhile is kept for urd_client_turn().
 */
#include "sdk/client_impl.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

/*
 * urd counts a deadline from the arrival of the request, so its answer, which
 * says more than a local timeout, comes a moment after the time is up.
 */
#define ANSWER_GRACE_MS 50u

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / NSEC_PER_MSEC;
}

static int answer_keep(struct urd_client *c, struct urd_span frame)
{
	struct urd_kept *k = malloc(sizeof(*k) + frame.len);

	if (!k)
		return -ENOMEM;
	urd_list_init(&k->node);
	k->len = frame.len;
	memcpy(k->frame, frame.p, frame.len);
	urd_list_push(&c->kept, &k->node);
	return 0;
}

/* Wait until the socket is ready or the time is up. */
static int client_wait(struct urd_client *c, u64 until_ms)
{
	struct pollfd p = { .fd = c->fd, .events = urd_client_events(c) };
	int timeout_ms = -1;
	u64 now;

	if (until_ms != URD_NEVER) {
		now = now_ms();
		if (now >= until_ms)
			return -ETIMEDOUT;
		timeout_ms = (int)urd_min(until_ms - now, (u64)INT32_MAX);
	}
	if (poll(&p, 1, timeout_ms) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

/*
 * Read what there is until the answer to @msgid comes.  Return: 1 with it, 0 when
 * there is no more for now, negative errno; @lost if the connection is.
 */
static int answers_sort(struct urd_client *c, u32 msgid, urd_part_fn fn, void *arg,
			struct urd_answer *a, bool *lost)
{
	struct urd_span frame;
	int ret;

	while ((ret = urd_client_read(c, a, &frame)) > 0) {
		if (a->msgid != msgid) {
			ret = answer_keep(c, frame);
		} else if (a->kind == URD_KIND_ANSWER) {
			return 1;
		} else {
			ret = fn(a, arg);
			if (!ret && a->kind == URD_KIND_CHUNK)
				urd_client_taken(c, msgid);
		}
		if (ret)
			return ret < 0 ? ret : -EINVAL;
		urd_client_flush(c);
	}
	*lost = ret < 0;
	return ret;
}

static int request_run(struct urd_client *c, const char *method, const void *params,
		       size_t params_len, const struct urd_client_opts *opts, urd_part_fn fn,
		       void *arg, struct urd_answer *answer)
{
	u64 until_ms = URD_NEVER;
	bool lost = false;
	u32 msgid;
	int ret;

	if (opts->deadline_ms)
		until_ms = now_ms() + opts->deadline_ms + ANSWER_GRACE_MS;
	free(c->current);
	c->current = NULL;
	ret = urd_client_send(c, method, params, params_len, opts, &msgid);
	if (ret)
		return ret;
	do {
		urd_client_flush(c);
		ret = answers_sort(c, msgid, fn, arg, answer, &lost);
		if (ret > 0)
			return 0;
		if (!ret)
			ret = client_wait(c, until_ms);
	} while (!ret);
	if (lost)
		return ret;
	(void)urd_client_cancel(c, msgid);
	urd_client_flush(c);
	urd_client_slot(c, msgid)->want = WANT_DROP;
	return ret;
}

URD_API int urd_client_call(struct urd_client *client, const char *method, const void *params,
			    size_t params_len, const struct urd_client_opts *opts,
			    struct urd_answer *answer)
{
	struct urd_client_opts plain = { 0 };

	if (opts)
		plain = *opts;
	plain.stream = false;
	plain.progress = false;
	return request_run(client, method, params, params_len, &plain, NULL, NULL, answer);
}

URD_API int urd_client_stream(struct urd_client *client, const char *method, const void *params,
			      size_t params_len, const struct urd_client_opts *opts, urd_part_fn fn,
			      void *arg, struct urd_answer *answer)
{
	struct urd_client_opts parts = { 0 };

	if (opts)
		parts = *opts;
	parts.stream = true;
	return request_run(client, method, params, params_len, &parts, fn, arg, answer);
}
