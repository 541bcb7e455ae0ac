/* SPDX-License-Identifier: MIT */
/*
 * What the commands for admins share: their options, one question to the admin
 * socket of a running urd, and what to say when there is no good answer.
 */
#ifndef URD_ADMIN_H
#define URD_ADMIN_H

#include <urd/client.h>

#include "base/base.h"

/**
 * struct urd_admin_args - a command for admins
 * @cmd: its name
 * @usage: its help
 * @takes: what its arguments are called, for errors
 * @args_min, @args_max: how many there may be
 * @timeout: has the option --timeout
 * @socket: address
 * @json: print the answer as JSON
 * @timeout_ms: of --timeout, -1 if not given
 * @args: NULL-terminated arguments
 */
struct urd_admin_args {
	const char *cmd;
	const char *usage;
	const char *takes;
	int args_min;
	int args_max;
	bool timeout;
	const char *socket;
	bool json;
	s64 timeout_ms;
	char **args;
};

/** urd_admin_args - read options; Return: -1 to go on, else an exit code */
int urd_admin_args(int argc, char **argv, struct urd_admin_args *a);

/**
 * typedef urd_admin_fn - print the answer for people
 * @result: one MessagePack value
 *
 * Return: 0, or -EBADMSG (this is not what was asked for).
 */
typedef int (*urd_admin_fn)(const struct urd_admin_args *a, struct urd_span result);

/**
 * urd_admin_ask - one question, its answer printed
 * @a: from urd_admin_args()
 * @method: method of urd's own
 * @params: one MessagePack value
 * @show: for people; not called with --json
 *
 * Return: an exit code.
 */
int urd_admin_ask(const struct urd_admin_args *a, const char *method, struct urd_span params,
		  urd_admin_fn show);

#endif /* URD_ADMIN_H */
