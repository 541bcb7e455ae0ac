/* SPDX-License-Identifier: MIT */
/*
 * A growing buffer for framed bytes, as the C client and the C worker use it.
 * Unlike the daemon's inbox it lives on the heap and belongs to one process
 * that has only a few of them.  The announced length of a frame is not
 * believed: memory grows with the bytes that really came, at most twofold.
 */
#ifndef URD_STREAM_H
#define URD_STREAM_H

#include <sys/types.h>

#include "base/base.h"

/**
 * struct urd_stream - bytes between @head and @tail are in the buffer
 * @p: heap memory, or NULL
 * @cap: its size in bytes
 * @head: first byte in use
 * @tail: one after the last byte in use
 *
 * All zero is an empty stream.
 */
struct urd_stream {
	u8 *p;
	size_t cap;
	size_t head;
	size_t tail;
};

/** urd_stream_fini - give the memory back; the stream is empty and usable again */
void urd_stream_fini(struct urd_stream *s);

/** urd_stream_len - bytes in the buffer */
static inline size_t urd_stream_len(const struct urd_stream *s)
{
	return s->tail - s->head;
}

/**
 * urd_stream_room - make room for @need bytes after the tail
 *
 * Pointers into the stream are void afterwards.
 *
 * Return: 0 or -ENOMEM.
 */
int urd_stream_room(struct urd_stream *s, size_t need) URD_MUST_CHECK;

/**
 * urd_stream_next - take the next whole frame out
 * @s: the stream
 * @max: largest payload accepted, in bytes
 * @f: set to the payload, valid until the stream is read into again
 *
 * Return: 1 with a frame; 0 more bytes are needed; -EBADMSG (length 0),
 * -EMSGSIZE (longer than @max).
 */
int urd_stream_next(struct urd_stream *s, u32 max, struct urd_span *f) URD_MUST_CHECK;

/**
 * urd_stream_read - one read(2) into the buffer
 * @s: the stream; urd_stream_next() has just returned 0 on it
 * @fd: where to read
 *
 * Return: bytes read, 0 at the end of file, negative errno.
 */
ssize_t urd_stream_read(struct urd_stream *s, int fd) URD_MUST_CHECK;

/** urd_stream_trim - give a large buffer back if nothing is in it */
void urd_stream_trim(struct urd_stream *s);

#endif /* URD_STREAM_H */
