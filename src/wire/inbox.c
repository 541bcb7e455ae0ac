// SPDX-License-Identifier: MIT
/*
 * Reassembly.  Received bytes lie between head and tail of one buffer, and head
 * never comes before URD_HEADROOM.  Who asks for a block asks in
 * urd_inbox_next(), once the bytes at hand have said how large it must be;
 * urd_inbox_space() takes none but the chunk.
 *
 * A handed-out payload is copied if it is small, and otherwise takes the buffer
 * along; bytes of the next one that are already in it move to a new chunk.
 */
#include "wire/inbox.h"

#include "wire/rpc.h"

/* Below this a copy costs less than a chunk that waits for its frame to be put. */
#define COPY_MAX 2048u

static u32 inbox_avail(const struct urd_inbox *in)
{
	return in->tail - in->head;
}

static const u8 *inbox_head(const struct urd_inbox *in)
{
	return in->buf.p + in->head;
}

static void inbox_rewind(struct urd_inbox *in)
{
	in->head = URD_HEADROOM;
	in->tail = URD_HEADROOM;
}

/* Move what is there to the start of the buffer. */
static void inbox_compact(struct urd_inbox *in)
{
	u32 n = inbox_avail(in);

	memmove(in->buf.p + URD_HEADROOM, inbox_head(in), n);
	in->head = URD_HEADROOM;
	in->tail = URD_HEADROOM + n;
}

/* Drop @n bytes at the head, which were handed out. */
static void inbox_consume(struct urd_inbox *in, u32 n)
{
	in->head += n;
	in->scanned = 0;
	urd_mp_scan_init(&in->scan);
}

/*
 * See to it that @need bytes, from the head on, find room in one buffer.  A
 * buffer that is too small is replaced by one of at least @wish bytes.
 */
static int inbox_fit(struct urd_inbox *in, size_t need, size_t wish)
{
	struct urd_buf buf;
	u32 n = inbox_avail(in);
	int ret;

	if (in->head + need <= in->buf.cap)
		return 0;
	if (URD_HEADROOM + need <= in->buf.cap) {
		inbox_compact(in);
		return 0;
	}
	ret = urd_arena_get(in->arena, urd_max(URD_HEADROOM + need, wish), &buf);
	if (ret)
		return ret;
	memcpy(buf.p + URD_HEADROOM, inbox_head(in), n);
	urd_arena_put(in->arena, &in->buf);
	in->buf = buf;
	in->head = URD_HEADROOM;
	in->tail = URD_HEADROOM + n;
	return 0;
}

void urd_inbox_init(struct urd_inbox *in, struct urd_arena *arena, enum urd_dialect dialect,
		    u32 frame_max, u32 chunk)
{
	memset(in, 0, sizeof(*in));
	in->arena = arena;
	in->dialect = dialect;
	in->frame_max = frame_max;
	/* What the arena will make of it, so that sizes compare. */
	in->chunk = 1u << URD_ARENA_MIN_ORDER;
	while (in->chunk < chunk && in->chunk < 1u << URD_ARENA_MAX_ORDER)
		in->chunk *= 2;
	inbox_rewind(in);
	urd_mp_scan_init(&in->scan);
}

void urd_inbox_reset(struct urd_inbox *in)
{
	urd_arena_put(in->arena, &in->buf);
	inbox_rewind(in);
	inbox_consume(in, 0);
}

void urd_inbox_trim(struct urd_inbox *in)
{
	if (in->buf.p && in->head == in->tail) {
		urd_arena_put(in->arena, &in->buf);
		inbox_rewind(in);
	}
}

bool urd_inbox_is_clean(const struct urd_inbox *in)
{
	return in->head == in->tail;
}

/*
 * Where reads must end.  A buffer made for one large frame takes no byte of the
 * next, so that it can be handed out without one being moved.
 */
static u32 inbox_limit(const struct urd_inbox *in)
{
	u32 len;

	if (in->dialect != URD_DIALECT_FRAMED || in->buf.cap <= in->chunk)
		return in->buf.cap;
	if (inbox_avail(in) < URD_FRAME_HEADER)
		return in->buf.cap;
	len = get_be32(inbox_head(in));
	if (len >= in->buf.cap - in->head - URD_FRAME_HEADER)
		return in->buf.cap;
	return urd_max(in->head + URD_FRAME_HEADER + len, in->tail);
}

int urd_inbox_space(struct urd_inbox *in, u8 **p, u32 *len)
{
	u32 room;
	int ret;

	if (in->head == in->tail) {
		inbox_rewind(in);
		if (in->buf.cap > in->chunk)
			urd_arena_put(in->arena, &in->buf);
	}
	if (!in->buf.p) {
		ret = urd_arena_get(in->arena, in->chunk, &in->buf);
		if (ret)
			return ret;
	}
	/* A short read costs a system call, which a small move is cheaper than. */
	room = in->buf.cap - in->tail;
	if (in->head > URD_HEADROOM &&
	    (!room || (room < in->buf.cap / 4 && inbox_avail(in) <= COPY_MAX)))
		inbox_compact(in);
	room = inbox_limit(in) - in->tail;
	if (!room)
		return -ENOMEM;
	*p = in->buf.p + in->tail;
	*len = room;
	return 0;
}

void urd_inbox_commit(struct urd_inbox *in, u32 n)
{
	urd_assert(n <= in->buf.cap - in->tail);
	in->tail += n;
}

/* Hand out a copy of the payload, in a block that is no larger than it must be. */
static int inbox_copy(struct urd_inbox *in, u32 head_len, u32 len, struct urd_frame *f)
{
	int ret = urd_arena_get(in->arena, (size_t)URD_HEADROOM + len, &f->buf);

	if (ret)
		return ret;
	f->p = f->buf.p + URD_HEADROOM;
	f->len = len;
	memcpy(f->p, inbox_head(in) + head_len, len);
	inbox_consume(in, head_len + len);
	return 1;
}

/* Hand out the payload with the buffer, after saving what follows it. */
static int inbox_steal(struct urd_inbox *in, u32 head_len, u32 len, struct urd_frame *f)
{
	u32 rest = inbox_avail(in) - head_len - len;
	struct urd_buf buf = { 0 };
	int ret;

	if (rest) {
		ret = urd_arena_get(in->arena, urd_max(in->chunk, URD_HEADROOM + rest), &buf);
		if (ret)
			return ret;
		memcpy(buf.p + URD_HEADROOM, inbox_head(in) + head_len + len, rest);
	}
	f->buf = in->buf;
	f->p = in->buf.p + in->head + head_len;
	f->len = len;
	in->buf = buf;
	inbox_rewind(in);
	inbox_consume(in, 0);
	in->tail += rest;
	return 1;
}

/* The payload of @len bytes is whole, behind @head_len bytes of header. */
static int inbox_hand_out(struct urd_inbox *in, u32 head_len, u32 len, struct urd_frame *f)
{
	u32 rest = inbox_avail(in) - head_len - len;

	/* A buffer larger than the chunk was made for this payload alone. */
	if (!rest && in->buf.cap > in->chunk)
		return inbox_steal(in, head_len, len, f);
	if (len <= COPY_MAX || rest >= len)
		return inbox_copy(in, head_len, len, f);
	return inbox_steal(in, head_len, len, f);
}

static int framed_next(struct urd_inbox *in, struct urd_frame *f)
{
	u32 avail = inbox_avail(in);
	u32 len;

	if (avail < URD_FRAME_HEADER)
		return 0;
	len = get_be32(inbox_head(in));
	if (!len)
		return -EBADMSG;
	if (len > in->frame_max)
		return -EMSGSIZE;
	if (avail - URD_FRAME_HEADER < len)
		return inbox_fit(in, (size_t)URD_FRAME_HEADER + len, 0);
	return inbox_hand_out(in, URD_FRAME_HEADER, len, f);
}

/* Scan what came in since, but not beyond what one value may have. */
static int plain_scan(struct urd_inbox *in)
{
	u32 n = urd_min(inbox_avail(in), in->frame_max) - in->scanned;
	size_t used;
	int ret;

	if (in->scan.done)
		return 1;
	ret = urd_mp_scan(&in->scan, inbox_head(in) + in->scanned, n, &used);
	in->scanned += (u32)used;
	return ret;
}

static int plain_next(struct urd_inbox *in, struct urd_frame *f)
{
	u64 need;
	int ret;

	ret = plain_scan(in);
	if (ret < 0)
		return ret;
	if (ret)
		return inbox_hand_out(in, 0, in->scanned, f);
	/* At least one byte is missing, and surely those that a string announced. */
	need = in->scanned + urd_max(in->scan.skip, (u64)1);
	if (need > in->frame_max)
		return -EMSGSIZE;
	return inbox_fit(in, need,
			 urd_min((u64)in->buf.cap * 2, (u64)URD_HEADROOM + in->frame_max));
}

int urd_inbox_next(struct urd_inbox *in, struct urd_frame *f)
{
	if (in->head == in->tail)
		return 0;
	if (in->dialect == URD_DIALECT_UNKNOWN) {
		u8 first = *inbox_head(in);

		if (first <= 0x01)
			in->dialect = URD_DIALECT_FRAMED;
		else if (first >= 0x93 && first <= 0x95)
			in->dialect = URD_DIALECT_PLAIN;
		else
			return -EBADMSG;
	}
	if (in->dialect == URD_DIALECT_FRAMED)
		return framed_next(in, f);
	return plain_next(in, f);
}
