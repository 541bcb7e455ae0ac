// SPDX-License-Identifier: MIT
/*
 * Framed bytes on the heap, for the C client and the C worker.  Any thread may
 * use a stream as long as it is one at a time.
 */
#include "sdk/stream.h"

#include <stdlib.h>
#include <unistd.h>

#include <urd/wire.h>

/* A pipe holds 64 KiB unless told otherwise: more is seldom there to be read at once. */
#define READ_MIN ((size_t)16 << 10)
#define READ_MAX ((size_t)64 << 10)
/* An idle process should not sit on the memory of its largest message. */
#define KEEP_MAX ((size_t)1 << 20)

void urd_stream_fini(struct urd_stream *s)
{
	free(s->p);
	*s = (struct urd_stream){ 0 };
}

void urd_stream_trim(struct urd_stream *s)
{
	if (s->head == s->tail && s->cap > KEEP_MAX)
		urd_stream_fini(s);
}

int urd_stream_room(struct urd_stream *s, size_t need)
{
	size_t len = urd_stream_len(s);
	size_t cap = s->cap;
	u8 *p;

	if (!len) {
		s->head = 0;
		s->tail = 0;
	}
	if (s->cap - s->tail >= need)
		return 0;
	if (s->head) {
		memmove(s->p, s->p + s->head, len);
		s->head = 0;
		s->tail = len;
	}
	if (cap - len >= need)
		return 0;
	/* Twofold growth keeps the copying linear in the bytes received. */
	cap = urd_max(cap * 2, len + need);
	p = realloc(s->p, cap);
	if (!p)
		return -ENOMEM;
	s->p = p;
	s->cap = cap;
	return 0;
}

int urd_stream_next(struct urd_stream *s, u32 max, struct urd_span *f)
{
	size_t len = urd_stream_len(s);
	u32 payload;

	if (len < URD_FRAME_HEADER)
		return 0;
	payload = get_be32(s->p + s->head);
	if (!payload)
		return -EBADMSG;
	if (payload > max)
		return -EMSGSIZE;
	if (len - URD_FRAME_HEADER < payload)
		return 0;
	f->p = s->p + s->head + URD_FRAME_HEADER;
	f->len = payload;
	s->head += URD_FRAME_HEADER + (size_t)payload;
	return 1;
}

/* How much to read: what the frame at the head lacks, within reason. */
static size_t stream_want(const struct urd_stream *s)
{
	size_t len = urd_stream_len(s);
	size_t most = urd_max(len, READ_MAX);
	size_t frame;

	if (len < URD_FRAME_HEADER)
		return READ_MIN;
	frame = URD_FRAME_HEADER + (size_t)get_be32(s->p + s->head);
	if (frame <= len + READ_MIN)
		return READ_MIN;
	return urd_min(frame - len, most);
}

ssize_t urd_stream_read(struct urd_stream *s, int fd)
{
	ssize_t n;
	int ret;

	ret = urd_stream_room(s, stream_want(s));
	if (ret)
		return ret;
	do {
		n = read(fd, s->p + s->tail, s->cap - s->tail);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	s->tail += (size_t)n;
	return n;
}
