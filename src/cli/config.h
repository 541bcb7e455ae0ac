/* SPDX-License-Identifier: MIT */
/*
 * The configuration: a file, then -o KEY=VALUE, then a command given directly,
 * checked as a whole before anything is done with it.
 */
#ifndef URD_CONFIG_H
#define URD_CONFIG_H

#include <urd/urd.h>

#include "base/base.h"
#include "cli/config_keys.h"

/** A buffer for any error line, in bytes. */
#define URD_CONFIG_ERR_MAX 1024

/**
 * struct urd_config - a configuration that was accepted
 * @values: for urd_open(), and what the daemon itself needs
 *
 * The rest is private.
 */
struct urd_config {
	struct urd_config_values values;
	struct config_mem *mem;
};

/**
 * struct urd_config_args - where it comes from
 * @file: path, or NULL
 * @sets: "KEY=VALUE" of each -o
 * @sets_nr: how many
 * @command: program and arguments for the pool "default", NULL-terminated, or NULL
 * @listen: address to listen on if nothing else says where, or NULL for none
 */
struct urd_config_args {
	const char *file;
	const char *const *sets;
	u32 sets_nr;
	const char *const *command;
	const char *listen;
};

/**
 * urd_config_load - read, check and complete a configuration
 * @args: where from; need not outlive the call
 * @config: set to the configuration; free with urd_config_free()
 * @err: on failure one line: where, what, and how to fix it
 * @err_len: its size; URD_CONFIG_ERR_MAX holds any
 *
 * Context: one thread at a time, the parser of the file is not re-entrant.
 * Return: 0, -EINVAL, -ENOMEM, or why the file cannot be read.
 */
int urd_config_load(const struct urd_config_args *args, struct urd_config **config, char *err,
		    size_t err_len) URD_MUST_CHECK;

/** urd_config_free - free a configuration; NULL is fine */
void urd_config_free(struct urd_config *config);

#endif /* URD_CONFIG_H */
