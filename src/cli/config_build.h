/* SPDX-License-Identifier: MIT */
/*
 * A configuration in the making, shared by config.c (orders, -o, checks of the
 * whole), config_set.c (one value) and config_file.c (the file).
 */
#ifndef URD_CONFIG_BUILD_H
#define URD_CONFIG_BUILD_H

#include "cli/config.h"
#include "cli/config_value.h"

/** Pools that a configuration may have. */
#define URD_POOLS_MAX 256
/** Listeners that a configuration may have. */
#define URD_LISTEN_MAX 64

/** struct config_mem - a piece of memory that lives as long as the configuration */
struct config_mem {
	struct config_mem *next;
	_Alignas(16) u8 bytes[];
};

/**
 * struct urd_pool_build - a pool in the making
 * @conf: its values so far
 * @where: where it was opened or last seen, for errors
 * @at: where each key was set, by row of the table; NULL if it was not
 */
struct urd_pool_build {
	struct urd_pool_conf conf;
	const char *where;
	const char *at[URD_KEYS_MAX];
};

/**
 * struct urd_build - a configuration in the making
 * @config: the result
 * @pools: room for URD_POOLS_MAX
 * @pools_nr: how many there are
 * @at: where each key outside of pools was set
 * @listen_text: addresses as given by -o so far, NULL-terminated
 * @err: filled by urd_build_fail()
 * @err_len: its size
 */
struct urd_build {
	struct urd_config *config;
	struct urd_pool_build *pools;
	u32 pools_nr;
	const char *at[URD_KEYS_MAX];
	const char *const *listen_text;
	char *err;
	size_t err_len;
};

/** urd_build_fail - "WHERE: explanation"; returns -EINVAL */
int urd_build_fail(struct urd_build *b, const char *where, const char *fmt, ...) URD_PRINTF(3, 4);

/** urd_build_alloc - zeroed memory of the configuration; aborts the process without memory */
void *urd_build_alloc(struct urd_build *b, size_t size);

/** urd_build_str - formatted string in memory of the configuration */
const char *urd_build_str(struct urd_build *b, const char *fmt, ...) URD_PRINTF(2, 3);

/** urd_build_pool - the pool of that name, or NULL */
struct urd_pool_build *urd_build_pool(struct urd_build *b, const char *name);

/** urd_build_pool_add - a new pool; its name is not yet taken */
int urd_build_pool_add(struct urd_build *b, const char *name, const char *where,
		       struct urd_pool_build **pool) URD_MUST_CHECK;

/**
 * urd_build_set - set a key
 * @key: which
 * @pool: whose, NULL outside of pools
 * @text: values as written, one unless the key is a list
 * @nr: how many
 * @where: for errors
 */
int urd_build_set(struct urd_build *b, const struct urd_key *key, struct urd_pool_build *pool,
		  const char *const *text, u32 nr, const char *where) URD_MUST_CHECK;

/** urd_build_check_item - is one element of a list well formed? */
int urd_build_check_item(struct urd_build *b, const struct urd_key *key, const char *text,
			 const char *where) URD_MUST_CHECK;

/** urd_build_file - read a file into the configuration */
int urd_build_file(struct urd_build *b, const char *path) URD_MUST_CHECK;

/** urd_build_option - apply one -o KEY=VALUE; commands of pools in a pass before the others */
int urd_build_option(struct urd_build *b, const char *set, bool commands) URD_MUST_CHECK;

/** urd_build_finish - check the whole and hand it to the configuration */
int urd_build_finish(struct urd_build *b) URD_MUST_CHECK;

#endif /* URD_CONFIG_BUILD_H */
