/* SPDX-License-Identifier: MIT */
/*
 * What the subcommands of the program share: exit codes, the table's row and a
 * way to parse options with helpful errors.
 */
#ifndef URD_CLI_H
#define URD_CLI_H

#include <getopt.h>

#include "base/base.h"

/** enum urd_exit - exit codes; promises to scripts */
enum urd_exit {
	URD_EXIT_OK = 0,
	URD_EXIT_FAILED = 1,	   /* run: a failure; call: the worker's error; probe: no */
	URD_EXIT_USAGE = 2,	   /* wrong options or configuration */
	URD_EXIT_NOT_EXECUTED = 3, /* call: failed, and no worker saw it */
	URD_EXIT_MAYBE = 4,	   /* call: failed, and a worker may have run it */
	URD_EXIT_NO_CONNECT = 5,   /* call: nobody answers at the socket */
	URD_EXIT_UNSUPPORTED = 69, /* run: this kernel or its limits cannot run urd */
};

/**
 * struct urd_cmd - a subcommand
 * @name: as typed
 * @run: gets its own name as argv[0]; returns an exit code
 * @help: one line
 */
struct urd_cmd {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
};

/** Value of "-h" and "--help" in every table of long options. */
#define URD_OPT_HELP 'h'

/**
 * urd_cli_option - next option of a subcommand
 * @argc: as of the subcommand
 * @argv: likewise; argv[0] is its name
 * @shorts: getopt's short options, without the leading "+:"
 * @longs: getopt's long options
 *
 * An unknown option or a missing argument is told on stderr in one line, with
 * the nearest option there is.
 *
 * Return: the option, -1 after the last, '?' after an error (exit with
 * URD_EXIT_USAGE).
 */
int urd_cli_option(int argc, char **argv, const char *shorts, const struct option *longs);

/** urd_cli_usage - tell a usage error in one line; returns URD_EXIT_USAGE */
int urd_cli_usage(const char *cmd, const char *fmt, ...) URD_PRINTF(2, 3);

/** urd_cli_socket - where urd listens unless told otherwise; in @buf */
const char *urd_cli_socket(char *buf, size_t len);

/** urd_cli_flush - are all of stdout's bytes out? Else says why not. */
bool urd_cli_flush(void);

int urd_cmd_run(int argc, char **argv);
int urd_cmd_call(int argc, char **argv);
int urd_cmd_probe(int argc, char **argv);
int urd_cmd_status(int argc, char **argv);
int urd_cmd_workers(int argc, char **argv);
int urd_cmd_scale(int argc, char **argv);
int urd_cmd_reload(int argc, char **argv);
int urd_cmd_recycle(int argc, char **argv);
int urd_cmd_kill(int argc, char **argv);
int urd_cmd_drain(int argc, char **argv);

#endif /* URD_CLI_H */
