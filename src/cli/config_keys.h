/* SPDX-License-Identifier: MIT */
/*
 * The one table of configuration keys: it drives the file's parser, -o, the
 * help and the check of the reference manual.
 */
#ifndef URD_CONFIG_KEYS_H
#define URD_CONFIG_KEYS_H

#include <urd/urd.h>

#include "base/base.h"

/** enum urd_section - where a key stands */
enum urd_section { URD_SECTION_ROOT, URD_SECTION_LOG, URD_SECTION_POOL, URD_SECTION_NR };

/** enum urd_key_type - how its value is written */
enum urd_key_type {
	URD_KEY_COUNT,	  /* u32 or u64, by @width */
	URD_KEY_SIZE,	  /* u32 or u64, by @width */
	URD_KEY_DURATION, /* u64 nanoseconds */
	URD_KEY_SIGNED,	  /* s32; @min and @max are s64 */
	URD_KEY_OCTAL,	  /* s32, permission bits */
	URD_KEY_BOOL,	  /* bool */
	URD_KEY_SWITCH,	  /* s32: 0, 1, or left as it was */
	URD_KEY_STRING,	  /* const char * */
	URD_KEY_WORD,	  /* an enum, by @words */
	URD_KEY_LIST,	  /* const char *const *, NULL-terminated */
	URD_KEY_LISTEN,	  /* const struct urd_listen_conf * and its count */
	URD_KEY_ADMIN,	  /* struct urd_listen_conf */
	URD_KEY_WORKERS,  /* sets min_workers and max_workers */
};

/**
 * struct urd_key - one key
 * @name: as in the file; unique within its section
 * @section: where
 * @type: how written
 * @offset: of the value in struct urd_config_values or struct urd_pool_conf
 * @width: bytes of a URD_KEY_SIZE or URD_KEY_COUNT value; 0 is as 4
 * @min: smallest value (bytes, nanoseconds, or a count)
 * @max: largest value
 * @off_ok: a duration may be "off"
 * @unlimited_ok: a u64 may be "unlimited", URD_RLIMIT_NONE
 * @words: of URD_KEY_WORD, in the order of the enum's values
 * @def: the default as one would write it, or "" if there is none
 * @help: one line
 */
struct urd_key {
	const char *name;
	enum urd_section section;
	enum urd_key_type type;
	size_t offset;
	size_t width;
	u64 min;
	u64 max;
	bool off_ok;
	bool unlimited_ok;
	const char *const *words;
	const char *def;
	const char *help;
};

/**
 * struct urd_config_values - what the sections outside of pools set
 * @conf: for urd_open()
 * @drain_timeout_ns: how long a graceful stop may take
 * @admin: where admins are listened to, no address if nowhere; the last of conf.listen
 */
struct urd_config_values {
	struct urd_conf conf;
	u64 drain_timeout_ns;
	struct urd_listen_conf admin;
};

/** Number of rows of urd_keys at most, for arrays by row. */
#define URD_KEYS_MAX 80

extern const struct urd_key urd_keys[];
extern const u32 urd_keys_nr;

/** urd_section_name - "", "log" or "pool" */
const char *urd_section_name(enum urd_section section);

/** urd_key_find - the row of a key, or NULL */
const struct urd_key *urd_key_find(enum urd_section section, const char *name);

/** urd_key_index - row number */
static inline u32 urd_key_index(const struct urd_key *key)
{
	return (u32)(key - urd_keys);
}

/**
 * urd_key_advise - what to write instead of an unknown key
 * @section: where it was found
 * @name: the unknown key
 * @buf: filled with advice that follows "unknown key "x", "
 * @len: its size
 *
 * Knows the words that other process managers use, keys that belong into
 * another section, and slips of the fingers.
 */
void urd_key_advise(enum urd_section section, const char *name, char *buf, size_t len);

#endif /* URD_CONFIG_KEYS_H */
