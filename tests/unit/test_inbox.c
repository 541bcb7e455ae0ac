// SPDX-License-Identifier: MIT
/*
 * Streams, cut in every way, against what they were made of.  Each payload that
 * is handed out is kept to the end and its headroom is overwritten, so that a
 * payload that shares bytes with another, or with what is still to come, is
 * found out.
 */
#include "wire/inbox.h"

#include "wire/rpc.h"

#include "gen.h"

#include <criterion/criterion.h>

#define ARENA_BYTES ((size_t)8 << 20)
#define FRAMES_MAX 64u

/* What came out of a stream: payloads, and the last return value. */
struct outcome {
	struct urd_frame frames[FRAMES_MAX];
	u32 n;
	int ret;
	bool clean;
};

struct limits {
	enum urd_dialect dialect;
	u32 frame_max;
	u32 chunk;
};

static struct urd_arena arena;

static void arena_up(void)
{
	cr_assert_eq(urd_arena_init(&arena, ARENA_BYTES), 0);
}

/* Whoever leaks a block, or puts one twice, fails here. */
static void arena_down(void)
{
	urd_arena_fini(&arena);
}

static void expect_frame_sound(const struct urd_frame *f)
{
	cr_assert_not_null(f->buf.p);
	cr_assert_geq(f->p, f->buf.p + URD_HEADROOM, "no headroom");
	cr_assert_leq(f->p + f->len, f->buf.p + f->buf.cap);
	memset(f->p - URD_HEADROOM, 0xc1, URD_HEADROOM);
}

static void drain(struct urd_inbox *in, struct outcome *o)
{
	while ((o->ret = urd_inbox_next(in, &o->frames[o->n])) == 1) {
		expect_frame_sound(&o->frames[o->n]);
		o->n++;
		cr_assert_lt(o->n, FRAMES_MAX);
	}
}

/* One read of at most @n bytes, as the kernel would do it. */
static size_t read_some(struct urd_inbox *in, const u8 *p, size_t n)
{
	u8 *place;
	u32 room;

	cr_assert_eq(urd_inbox_space(in, &place, &room), 0);
	cr_assert_gt(room, 0);
	n = urd_min(n, (size_t)room);
	memcpy(place, p, n);
	urd_inbox_commit(in, (u32)n);
	return n;
}

static void run(const u8 *p, const struct cuts *c, struct limits l, struct outcome *o)
{
	struct urd_inbox in;
	size_t at = 0;

	memset(o, 0, sizeof(*o));
	urd_inbox_init(&in, &arena, l.dialect, l.frame_max, l.chunk);
	while (at < c->len && !o->ret) {
		at += read_some(&in, p + at, cuts_piece(c, at));
		drain(&in, o);
	}
	o->clean = urd_inbox_is_clean(&in);
	urd_inbox_reset(&in);
}

static void outcome_put(struct outcome *o)
{
	while (o->n)
		urd_arena_put(&arena, &o->frames[--o->n].buf);
}

/* A payload that is expected: where it is in the stream. */
struct want {
	size_t at;
	size_t len;
};

static void expect_once(const struct bytes *b, const struct cuts *c, struct limits l,
			const struct want *w, u32 n, int ret)
{
	struct outcome o;
	u32 i;

	run(b->p, c, l, &o);
	cr_assert_eq(o.ret, ret, "returned %d, not %d: mask %x a %zu b %zu", o.ret, ret, c->mask,
		     c->a, c->b);
	cr_assert_eq(o.n, n, "%u payloads, not %u: mask %x a %zu b %zu", o.n, n, c->mask, c->a,
		     c->b);
	for (i = 0; i < n; i++) {
		cr_assert_eq(o.frames[i].len, w[i].len);
		cr_assert(!memcmp(o.frames[i].p, b->p + w[i].at, w[i].len), "payload %u differs",
			  i);
	}
	if (!ret)
		cr_assert_eq(o.clean, n ? w[n - 1].at + w[n - 1].len == b->len : !b->len);
	outcome_put(&o);
	cr_assert_eq(arena.used, 0, "a block was lost");
}

static void expect(const struct bytes *b, struct limits l, const struct want *w, u32 n, int ret)
{
	struct cuts c = { .len = b->len };

	while (cuts_next(&c))
		expect_once(b, &c, l, w, n, ret);
}

static void expect_hex(const char *hex, struct limits l, const struct want *w, u32 n, int ret)
{
	struct bytes b = bytes_of(hex);

	expect(&b, l, w, n, ret);
}

static const struct limits framed = { URD_DIALECT_FRAMED, 1000, 512 };
static const struct limits plain = { URD_DIALECT_PLAIN, 1000, 512 };
static const struct limits unknown = { URD_DIALECT_UNKNOWN, 1000, 512 };

TestSuite(inbox, .init = arena_up, .fini = arena_down);

Test(inbox, framed_payloads_come_out_however_they_came_in)
{
	static const struct want w[] = { { 4, 1 }, { 9, 2 } };

	expect_hex("00 00 00 01 c0 00 00 00 02 cc ff", framed, w, 2, 0);
	expect_hex("00 00 00 01 c0 00 00 00 02 cc ff 00 00", framed, w, 2, 0);
	expect_hex("00 00 00 01 c0 00 00 00 02 cc", framed, w, 1, 0);
}

Test(inbox, plain_payloads_come_out_however_they_came_in)
{
	static const struct want w[] = { { 0, 5 }, { 5, 3 }, { 8, 5 } };

	expect_hex("93 01 a1 78 c0 cd 01 00 dc 00 02 90 80", plain, w, 3, 0);
	expect_hex("93 01 a1 78 c0 cd 01 00 dc 00 02 90", plain, w, 2, 0);
}

Test(inbox, the_first_byte_tells_the_dialect)
{
	static const struct want as_frame[] = { { 4, 1 } };
	static const struct want as_value[] = { { 0, 6 } };

	expect_hex("00 00 00 01 c0", unknown, as_frame, 1, 0);
	expect_hex("93 02 a1 65 91 c0", unknown, as_value, 1, 0);
	expect_hex("94 00 05 a1 65 c0", unknown, as_value, 1, 0);
	expect_hex("95 00 05 a0 c0 80", unknown, as_value, 1, 0);
	/* 01: a frame of at least 16 MiB, which this limit does not allow. */
	expect_hex("01 00 00 00", unknown, NULL, 0, -EMSGSIZE);
}

Test(inbox, an_unknown_first_byte_is_refused)
{
	u32 first;

	for (first = 0; first < 256; first++) {
		struct bytes b = { .len = 0 };
		bool known = first <= 1 || (first >= 0x93 && first <= 0x95);

		bytes_add(&b, first, 1);
		expect(&b, unknown, NULL, 0, known ? 0 : -EBADMSG);
	}
}

Test(inbox, f13_length_0_is_refused)
{
	static const struct want w[] = { { 4, 1 } };

	expect_hex("00 00 00 00", framed, NULL, 0, -EBADMSG);
	expect_hex("00 00 00 01 c0 00 00 00 00 c0", framed, w, 1, -EBADMSG);
}

/* A frame of @n bytes: one string, and before it a small frame. */
static struct bytes string_frame(u32 n)
{
	struct bytes b = bytes_of("00 00 00 01 c0");

	bytes_add(&b, n, 4);
	bytes_hex(&b, "da");
	bytes_add(&b, n - 3, 2);
	memset(b.p + b.len, 's', n - 3);
	b.len += n - 3;
	return b;
}

Test(inbox, f13_oversize_is_refused_and_the_limit_itself_is_not)
{
	struct want w[] = { { 4, 1 }, { 9, 0 } };
	struct bytes b;
	u32 n;

	for (n = 400; n <= 402; n++) {
		struct limits l = { URD_DIALECT_FRAMED, 401, 512 };

		w[1].len = n;
		b = string_frame(n);
		expect(&b, l, w, n <= 401 ? 2 : 1, n <= 401 ? 0 : -EMSGSIZE);
	}
}

Test(inbox, f13_oversize_is_refused_in_the_plain_dialect)
{
	struct limits l = { URD_DIALECT_PLAIN, 10, 512 };
	static const struct want w[] = { { 0, 10 }, { 10, 1 } };

	expect_hex("99 01 02 03 04 05 06 07 08 09 c0", l, w, 2, 0);
	expect_hex("a9 01 02 03 04 05 06 07 08 09 c0", l, w, 2, 0);
	expect_hex("9a 01 02 03 04 05 06 07 08 09 0a", l, NULL, 0, -EMSGSIZE);
	expect_hex("aa 01 02 03 04 05 06 07 08 09 0a", l, NULL, 0, -EMSGSIZE);
	/* A string is refused by what it says, before it is sent. */
	expect_hex("db 00 00 00 06", l, NULL, 0, -EMSGSIZE);
	expect_hex("db ff ff ff ff", l, NULL, 0, -EMSGSIZE);
	/* Beyond the limit nothing is looked at, whatever was read together. */
	expect_hex("9a 01 02 03 04 05 06 07 08 09 c1", l, NULL, 0, -EMSGSIZE);
}

Test(inbox, f13_a_header_alone_takes_no_more_than_its_frame)
{
	struct limits l = { URD_DIALECT_FRAMED, 1u << 20, 4096 };
	struct bytes b = bytes_of("00 10 00 01");
	struct urd_frame f;
	struct urd_inbox in;

	urd_inbox_init(&in, &arena, l.dialect, l.frame_max, l.chunk);
	read_some(&in, b.p, 4);
	cr_assert_eq(urd_inbox_next(&in, &f), -EMSGSIZE);
	cr_assert_leq(arena.used_max, 4096);
	urd_inbox_reset(&in);
	urd_inbox_init(&in, &arena, l.dialect, l.frame_max, l.chunk);
	b = bytes_of("00 10 00 00");
	read_some(&in, b.p, 3);
	cr_assert_eq(urd_inbox_next(&in, &f), 0);
	cr_assert_leq(arena.used_max, 4096, "before the header is whole nothing is known");
	read_some(&in, b.p + 3, 1);
	cr_assert_eq(urd_inbox_next(&in, &f), 0);
	cr_assert_eq(arena.used, 2u << 20);
	urd_inbox_reset(&in);
}

Test(inbox, f27_garbage_is_refused_in_the_plain_dialect)
{
	static const struct want w[] = { { 0, 1 } };
	struct bytes b = { .len = 0 };
	struct bytes well;
	u32 i;

	expect_hex("c0 c1", plain, w, 1, -EBADMSG);
	expect_hex("c0 92 c0 c1", plain, w, 1, -EBADMSG);
	for (i = 1; i < URD_NESTING_MAX; i++)
		bytes_hex(&b, "91");
	well = b;
	bytes_hex(&well, "90");
	expect(&well, plain, (const struct want[]){ { 0, well.len } }, 1, 0);
	bytes_hex(&b, "91 90");
	expect(&b, plain, NULL, 0, -E2BIG);
}

/* Build a stream of random payloads; @want says where they are. */
static u32 random_stream(u64 *seed, bool is_framed, u32 len_max, struct bytes *b, struct want *want)
{
	u32 n = 0;

	b->len = 0;
	while (n < 40) {
		u32 len = 1 + gen_below(seed, 1 + gen_below(seed, len_max));
		u32 head = len < 4 ? 1 : 3;
		u32 i;

		if (b->len + len + 8 > sizeof(b->p))
			break;
		if (is_framed)
			bytes_add(b, len < 4 ? 1 : len, 4);
		want[n].at = b->len;
		want[n++].len = len < 4 ? 1 : len;
		bytes_add(b, head == 1 ? 0xc0 : 0xda0000 | (len - 3), head);
		for (i = head; head == 3 && i < len; i++)
			bytes_add(b, gen_next(seed), 1);
	}
	return n;
}

/* Random pieces, and chunks so small that most frames outgrow them. */
Test(inbox, random_streams_in_random_pieces)
{
	static const u32 chunks[] = { 512, 1024, 4096, 16384 };
	u64 seed = 4711;
	u32 round;

	for (round = 0; round < 3000; round++) {
		struct limits l = { round % 2 ? URD_DIALECT_FRAMED : URD_DIALECT_PLAIN, 4096,
				    chunks[round / 2 % 4] };
		u32 piece_max = 1 + gen_below(&seed, 1 + gen_below(&seed, 4096));
		struct want want[40];
		struct urd_inbox in;
		struct outcome o = { .n = 0 };
		struct bytes b;
		size_t at = 0;
		u32 n;
		u32 i;

		n = random_stream(&seed, round % 2, 1u << (4 + round % 9), &b, want);
		urd_inbox_init(&in, &arena, l.dialect, l.frame_max, l.chunk);
		while (at < b.len) {
			u32 piece = 1 + gen_below(&seed, piece_max);

			at += read_some(&in, b.p + at, urd_min((size_t)piece, b.len - at));
			drain(&in, &o);
			cr_assert_eq(o.ret, 0);
			if (urd_inbox_is_clean(&in) && round % 5 == 0) {
				urd_inbox_trim(&in);
				cr_assert_null(in.buf.p);
			}
		}
		cr_assert(urd_inbox_is_clean(&in));
		cr_assert_eq(o.n, n);
		for (i = 0; i < n; i++) {
			cr_assert_eq(o.frames[i].len, want[i].len);
			cr_assert(!memcmp(o.frames[i].p, b.p + want[i].at, want[i].len));
		}
		urd_inbox_reset(&in);
		outcome_put(&o);
		cr_assert_eq(arena.used, 0);
	}
}

/* Feed a frame of @len bytes whose bytes count up, in reads as large as there is room. */
static void read_frame(struct urd_inbox *in, u32 len, u32 *reads)
{
	u32 at = 0;

	*reads = 0;
	while (at < len + 4) {
		struct urd_frame f;
		u8 *p;
		u32 room;
		u32 i;

		cr_assert_eq(urd_inbox_space(in, &p, &room), 0);
		room = urd_min(room, len + 4 - at);
		for (i = 0; i < room; i++, at++)
			p[i] = (u8)(at < 4 ? len >> 8 * (3 - at) : at * 7 + 1);
		urd_inbox_commit(in, room);
		++*reads;
		if (at < len + 4)
			cr_assert_eq(urd_inbox_next(in, &f), 0);
	}
}

Test(inbox, a_large_frame_is_read_straight_into_its_block)
{
	struct urd_inbox in;
	struct urd_frame f;
	u32 reads;
	u32 i;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 4u << 20, 65536);
	read_frame(&in, 3000000, &reads);
	cr_assert_eq(reads, 2, "the chunk, then all the rest");
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.len, 3000000);
	for (i = 0; i < f.len; i++)
		cr_assert_eq(f.p[i], (u8)((i + 4) * 7 + 1));
	expect_frame_sound(&f);
	cr_assert_null(in.buf.p, "the buffer went with the frame");
	cr_assert_eq(arena.used, f.buf.cap);
	urd_arena_put(&arena, &f.buf);
	urd_inbox_reset(&in);
}

Test(inbox, a_read_ends_where_a_large_frame_ends)
{
	struct bytes b = bytes_of("00 00 20 00");
	struct urd_inbox in;
	struct urd_frame f;
	u32 room;
	u8 *p;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 1u << 20, 4096);
	read_some(&in, b.p, 4);
	cr_assert_eq(urd_inbox_next(&in, &f), 0);
	cr_assert_eq(urd_inbox_space(&in, &p, &room), 0);
	cr_assert_eq(room, 8192);
	urd_inbox_reset(&in);
}

Test(inbox, a_small_frame_gets_a_tight_block)
{
	struct bytes b = bytes_of("00 00 00 01 c0");
	struct urd_inbox in;
	struct urd_frame f;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 1u << 20, 65536);
	read_some(&in, b.p, b.len);
	cr_assert_eq(urd_inbox_next(&in, &f), 1);
	cr_assert_eq(f.buf.cap, 512);
	cr_assert_not_null(in.buf.p, "the chunk stays for the next read");
	urd_inbox_trim(&in);
	cr_assert_null(in.buf.p);
	urd_arena_put(&arena, &f.buf);
	cr_assert_eq(arena.used, 0);
	urd_inbox_reset(&in);
}

Test(inbox, trim_takes_nothing_away_that_is_needed)
{
	static const struct want w[] = { { 4, 2 } };
	struct bytes b = bytes_of("00 00 00 02 cc 07");
	struct urd_inbox in;
	struct outcome o = { .n = 0 };
	size_t i;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 1000, 512);
	cr_assert(urd_inbox_is_clean(&in));
	for (i = 0; i < b.len; i++) {
		read_some(&in, b.p + i, 1);
		urd_inbox_trim(&in);
		cr_assert(!urd_inbox_is_clean(&in));
		drain(&in, &o);
	}
	cr_assert_eq(o.n, 1);
	cr_assert(!memcmp(o.frames[0].p, b.p + w[0].at, w[0].len));
	cr_assert(urd_inbox_is_clean(&in));
	outcome_put(&o);
	urd_inbox_reset(&in);
}

/* A buffer grew for values that came together; it does not stay that large. */
Test(inbox, a_grown_buffer_does_not_stay)
{
	struct outcome o = { .n = 0 };
	struct bytes b = bytes_of("da 03 00");
	struct urd_inbox in;
	u32 room;
	u8 *p;

	b.len += 768;
	bytes_hex(&b, "01");
	urd_inbox_init(&in, &arena, URD_DIALECT_PLAIN, 4096, 512);
	read_some(&in, b.p, 400);
	drain(&in, &o);
	read_some(&in, b.p + 400, b.len - 400);
	drain(&in, &o);
	cr_assert_eq(o.n, 2);
	cr_assert_eq(urd_inbox_space(&in, &p, &room), 0);
	cr_assert_leq(room, 512);
	outcome_put(&o);
	urd_inbox_reset(&in);
}

Test(inbox, f13_a_frame_that_no_block_can_hold_is_refused)
{
	struct bytes b = bytes_of("01 00 00 00");
	struct urd_inbox in;
	struct urd_frame f;

	urd_inbox_init(&in, &arena, URD_DIALECT_FRAMED, 64u << 20, 4096);
	read_some(&in, b.p, 4);
	cr_assert_eq(urd_inbox_next(&in, &f), -EMSGSIZE, "waiting for it would be for ever");
	urd_inbox_reset(&in);
}
