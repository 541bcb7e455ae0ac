/* SPDX-License-Identifier: MIT */
/*
 * The small change of C that every file uses: fixed-width names, container_of,
 * min and max, assertions that stay on.  No state, no system call.
 */
#ifndef URD_BASE_H
#define URD_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
/* clang-format off */
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
/* clang-format on */
#define urd_min(a, b)               \
	({                          \
		typeof(a) a_ = (a); \
		typeof(b) b_ = (b); \
		a_ < b_ ? a_ : b_;  \
	})
#define urd_max(a, b)               \
	({                          \
		typeof(a) a_ = (a); \
		typeof(b) b_ = (b); \
		a_ > b_ ? a_ : b_;  \
	})
#define URD_MUST_CHECK __attribute__((warn_unused_result))
#define URD_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define URD_API __attribute__((visibility("default")))

#define NSEC_PER_USEC 1000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC 1000000000ull

/** "never", as a point in time or a duration in nanoseconds */
#define URD_NEVER UINT64_MAX

/**
 * urd_assert_fail - print what was expected and abort
 *
 * A broken invariant ends the process: a crash costs a restart, a wrong answer
 * costs trust.
 */
__attribute__((noreturn, cold)) void urd_assert_fail(const char *expr, const char *file, int line,
						     const char *func);

/** urd_assert - state an invariant; on in every build */
#define urd_assert(x) ((x) ? (void)0 : urd_assert_fail(#x, __FILE__, __LINE__, __func__))

/** urd_assert_slow - an invariant that costs more than a few instructions to see */
#ifdef URD_DEBUG
#define urd_assert_slow(x) urd_assert(x)
#else
#define urd_assert_slow(x) ((void)0)
#endif

/** struct urd_span - bytes that somebody else owns */
struct urd_span {
	const u8 *p;
	u32 len;
};

/** get_be32 - read a big-endian u32 from unaligned bytes */
static inline u32 get_be32(const u8 *p)
{
	return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
}

/** put_be32 - write a big-endian u32 to unaligned bytes */
static inline void put_be32(u8 *p, u32 v)
{
	p[0] = (u8)(v >> 24);
	p[1] = (u8)(v >> 16);
	p[2] = (u8)(v >> 8);
	p[3] = (u8)v;
}

/** urd_ns_add - a point in time plus a duration; never stays never */
static inline u64 urd_ns_add(u64 t, u64 d)
{
	u64 sum;

	return __builtin_add_overflow(t, d, &sum) ? URD_NEVER : sum;
}

#endif /* URD_BASE_H */
