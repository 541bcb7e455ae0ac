/* SPDX-License-Identifier: MIT */
/*
 * Values of the configuration: text to numbers, with reasons when that fails.
 * Each function returns 0, or -EINVAL with one line of explanation in @why: what
 * is wrong with the value and how to write it right.  Pure, except that
 * urd_value_listen() looks up users and groups.
 */
#ifndef URD_CONFIG_VALUE_H
#define URD_CONFIG_VALUE_H

#include <urd/urd.h>

#include "base/base.h"

/** A buffer for any explanation, in bytes. */
#define URD_WHY_MAX 320

/** struct urd_complaint - an explanation */
struct urd_complaint {
	char text[URD_WHY_MAX];
};

/** urd_why_set - explain; returns -EINVAL */
int urd_why_set(struct urd_complaint *why, const char *fmt, ...) URD_PRINTF(2, 3);

/**
 * urd_value_duration - "1m30s" to nanoseconds
 * @text: numbers with units us ms s m h d, biggest unit first; 0; "off"
 * @off_ok: "off" is allowed and gives URD_OFF
 */
int urd_value_duration(const char *text, bool off_ok, u64 *ns,
		       struct urd_complaint *why) URD_MUST_CHECK;

/**
 * urd_value_size - "16MiB" to bytes
 * @text: a number with a unit B K KiB M MiB G GiB, or a bare one up to 4096
 */
int urd_value_size(const char *text, u64 *bytes, struct urd_complaint *why) URD_MUST_CHECK;

/** urd_value_count - a bare decimal number */
int urd_value_count(const char *text, u64 *n, struct urd_complaint *why) URD_MUST_CHECK;

/** urd_value_signed - a decimal number, perhaps with a minus */
int urd_value_signed(const char *text, s64 *n, struct urd_complaint *why) URD_MUST_CHECK;

/** urd_value_octal - permission bits, "022" or "0027" */
int urd_value_octal(const char *text, u64 *n, struct urd_complaint *why) URD_MUST_CHECK;

/** urd_value_bool - true or false, also yes, no, on, off */
int urd_value_bool(const char *text, bool *v, struct urd_complaint *why) URD_MUST_CHECK;

/**
 * urd_value_word - one of a list of words
 * @words: NULL-terminated
 * @index: set to the place of the word
 */
int urd_value_word(const char *text, const char *const *words, u32 *index,
		   struct urd_complaint *why) URD_MUST_CHECK;

/**
 * urd_value_listen - "unix:/path?mode=0660&group=www" or "tcp:host:port"
 * @text: the address; cut at its '?', so that it can be kept as the address
 * @listen: filled in; its address is @text
 */
int urd_value_listen(char *text, struct urd_listen_conf *listen,
		     struct urd_complaint *why) URD_MUST_CHECK;

/** urd_value_pool_name - is it a pool's name? */
int urd_value_pool_name(const char *text, struct urd_complaint *why) URD_MUST_CHECK;

/** urd_value_duration_show - nanoseconds to the shortest text that reads back the same */
void urd_value_duration_show(u64 ns, char *buf, size_t len);

/** urd_value_size_show - bytes to the shortest text that reads back the same */
void urd_value_size_show(u64 bytes, char *buf, size_t len);

#endif /* URD_CONFIG_VALUE_H */
