/* SPDX-License-Identifier: MIT */
/*
 * From a stream of bytes to whole payloads.  An inbox owns at most one arena
 * buffer that the next read goes into.  A small frame is copied into a tight
 * buffer of its own; a large one gets its final buffer as soon as its length is
 * known, and the rest is read straight into that.
 *
 * Pure: no system call; the caller does the reading.
 */
#ifndef URD_INBOX_H
#define URD_INBOX_H

#include "base/arena.h"
#include "base/base.h"
#include "wire/mp.h"

/** enum urd_dialect - how values are delimited on a connection */
enum urd_dialect {
	URD_DIALECT_UNKNOWN, /* told by the first byte: 00, 01 framed; 93-95 plain */
	URD_DIALECT_FRAMED,  /* u32 big-endian length, then one value */
	URD_DIALECT_PLAIN,   /* bare values */
};

/**
 * struct urd_inbox - reassembly of one stream
 * @arena: where buffers come from
 * @dialect: settled by the first byte if UNKNOWN
 * @frame_max: largest payload accepted, in bytes
 * @chunk: size of the buffer that reads of unknown size go into, in bytes
 * @buf: buffer being filled, or none
 * @head: first byte not yet handed out
 * @tail: one after the last byte received
 */
struct urd_inbox {
	struct urd_arena *arena;
	enum urd_dialect dialect;
	u32 frame_max;
	u32 chunk;
	struct urd_buf buf;
	u32 head;
	u32 tail;
	struct urd_mp_scan scan; /* plain: the value at head */
	u32 scanned;		 /* plain: bytes after head that were scanned */
};

/**
 * struct urd_frame - one whole payload
 * @buf: the block it is in; the receiver owns it and puts it back
 * @p: first byte; at least URD_HEADROOM bytes of @buf lie before it
 * @len: bytes
 */
struct urd_frame {
	struct urd_buf buf;
	u8 *p;
	u32 len;
};

/** urd_inbox_init - an empty inbox without a buffer */
void urd_inbox_init(struct urd_inbox *in, struct urd_arena *arena, enum urd_dialect dialect,
		    u32 frame_max, u32 chunk);

/** urd_inbox_reset - forget everything and give the buffer back */
void urd_inbox_reset(struct urd_inbox *in);

/**
 * urd_inbox_space - where the next read goes
 * @in: the inbox
 * @p: set to the first free byte
 * @len: set to the room there, at least 1
 *
 * The place stays valid until the next call on the inbox other than
 * urd_inbox_commit().
 *
 * Return: 0 or -ENOMEM (the arena is used up; try again when something was put).
 */
int urd_inbox_space(struct urd_inbox *in, u8 **p, u32 *len) URD_MUST_CHECK;

/** urd_inbox_commit - @n bytes were read to where urd_inbox_space() said */
void urd_inbox_commit(struct urd_inbox *in, u32 n);

/**
 * urd_inbox_next - hand out the next whole payload
 * @in: the inbox
 * @f: filled in
 *
 * Return: 1 with a payload; 0 more bytes are needed; -ENOMEM try again later,
 * nothing is lost; -EBADMSG (length 0, not MessagePack, unknown first byte),
 * -EMSGSIZE (longer than frame_max), -E2BIG (nesting, plain only): the stream
 * is of no more use.
 */
int urd_inbox_next(struct urd_inbox *in, struct urd_frame *f) URD_MUST_CHECK;

/** urd_inbox_is_clean - is the stream between two payloads? */
bool urd_inbox_is_clean(const struct urd_inbox *in);

/** urd_inbox_trim - give the buffer back if nothing is in it */
void urd_inbox_trim(struct urd_inbox *in);

#endif /* URD_INBOX_H */
