// SPDX-License-Identifier: MIT
/*
 * Tens of thousands of random and damaged values, on which the scanner must
 * agree with msgpack-c.
 */
#include "wire/mp.h"

#include "gen.h"

#include <criterion/criterion.h>
#include <msgpack/unpack.h>

#define ROUNDS 30000u

/*
 * Would msgpack-c set aside room for a container of 65536 and more?  Such a
 * header, real or not, is kept out of the comparison.
 */
static bool has_huge_count(const struct bytes *b)
{
	size_t i;

	for (i = 0; i + 2 < b->len; i++)
		if ((b->p[i] == 0xdd || b->p[i] == 0xdf) && (b->p[i + 1] || b->p[i + 2]))
			return true;
	return false;
}

/* What msgpack-c says, in our terms; 0 if it gives up for reasons of its own. */
static s64 len_by_msgpack(const struct bytes *b)
{
	msgpack_unpacked u;
	size_t off = 0;
	s64 ret = 0;

	msgpack_unpacked_init(&u);
	switch (msgpack_unpack_next(&u, (const char *)b->p, b->len, &off)) {
	case MSGPACK_UNPACK_SUCCESS:
	case MSGPACK_UNPACK_EXTRA_BYTES:
		ret = (s64)off;
		break;
	case MSGPACK_UNPACK_CONTINUE:
		ret = -EAGAIN;
		break;
	case MSGPACK_UNPACK_PARSE_ERROR:
		ret = -EBADMSG;
		break;
	case MSGPACK_UNPACK_NOMEM_ERROR:
		break;
	}
	msgpack_unpacked_destroy(&u);
	return ret;
}

Test(mp, agrees_with_msgpack_c)
{
	u64 seed = 20250101;
	u32 compared[3] = { 0 };
	u32 i;

	for (i = 0; i < ROUNDS; i++) {
		struct bytes b = { .len = 0 };
		s64 theirs;
		s64 ours;

		gen_value(&seed, &b, gen_below(&seed, 12));
		if (i % 3)
			gen_damage(&seed, &b);
		if (has_huge_count(&b))
			continue;
		theirs = len_by_msgpack(&b);
		ours = urd_mp_len(b.p, b.len);
		if (!theirs)
			continue;
		cr_assert_eq(ours, theirs, "round %u: %lld, msgpack-c %lld", i, (long long)ours,
			     (long long)theirs);
		compared[ours > 0 ? 0 : ours == -EAGAIN ? 1 : 2]++;
		if (i % 3 == 0)
			cr_assert_eq(ours, (s64)b.len);
	}
	/* The comparison is worth something only if all three outcomes were common. */
	for (i = 0; i < 3; i++)
		cr_assert_gt(compared[i], ROUNDS / 30, "outcome %u seen %u times", i, compared[i]);
	cr_assert_gt(compared[0] + compared[1] + compared[2], ROUNDS * 3 / 4);
}
