// SPDX-License-Identifier: MIT
/*
 * The program: a table of subcommands.  Help goes to stdout when it was asked
 * for; errors are one line on stderr and exit with 2.
 */
#include <stdio.h>
#include <urd/urd.h>

#include "cli/cli.h"
#include "cli/suggest.h"

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const struct urd_cmd cmds[] = {
	{ "run", urd_cmd_run, "start pools and listeners, serve until told to stop" },
	{ "call", urd_cmd_call, "send one request to a running urd, JSON in and out" },
	{ "status", urd_cmd_status, "tell how a running urd and its pools are" },
	{ "workers", urd_cmd_workers, "list the workers of a running urd" },
	{ "scale", urd_cmd_scale, "set the number of workers of a pool" },
	{ "reload", urd_cmd_reload, "replace all workers, one after the other" },
	{ "recycle", urd_cmd_recycle, "replace the workers of one pool, or one worker" },
	{ "kill", urd_cmd_kill, "kill a worker" },
	{ "drain", urd_cmd_drain, "finish what there is and end urd" },
	{ "probe", urd_cmd_probe, "tell whether this kernel and its limits can run urd" },
	{ "version", cmd_version, "print the version" },
	{ "help", cmd_help, "print this, or the help of a subcommand" },
};

static const struct urd_cmd *cmd_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(cmds); i++) {
		if (!strcmp(cmds[i].name, name))
			return &cmds[i];
	}
	return NULL;
}

static int cmd_unknown(const char *name)
{
	struct urd_suggest s;

	urd_suggest_init(&s, name);
	for (size_t i = 0; i < ARRAY_SIZE(cmds); i++)
		urd_suggest_try(&s, cmds[i].name);
	if (s.best)
		fprintf(stderr, "urd: no command \"%s\", did you mean \"%s\"?\n", name, s.best);
	else
		fprintf(stderr, "urd: no command \"%s\", see \"urd help\"\n", name);
	return URD_EXIT_USAGE;
}

static void help_print(void)
{
	printf("usage: urd COMMAND [OPTION]...\n\n"
	       "Keeps pools of worker processes warm and dispatches requests to them.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(cmds); i++)
		printf("  %-8s  %s\n", cmds[i].name, cmds[i].help);
	printf("\n\"urd COMMAND --help\" tells more about each.\n");
}

static int cmd_help(int argc, char **argv)
{
	static char help[] = "--help";
	const struct urd_cmd *cmd;
	char *args[3];

	if (argc > 2)
		return urd_cli_usage("help", "one command at a time");
	if (argc == 1 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help") ||
	    !strcmp(argv[1], "-h")) {
		help_print();
		return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
	}
	cmd = cmd_find(argv[1]);
	if (!cmd)
		return cmd_unknown(argv[1]);
	args[0] = argv[1];
	args[1] = help;
	args[2] = NULL;
	return cmd->run(2, args);
}

static int cmd_version(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, URD_OPT_HELP },
		{ 0 },
	};

	switch (urd_cli_option(argc, argv, "h", longs)) {
	case URD_OPT_HELP:
		printf("usage: urd version\n\nPrints the version.\n");
		return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
	case -1:
		break;
	default:
		return URD_EXIT_USAGE;
	}
	if (optind < argc)
		return urd_cli_usage("version", "takes no arguments");
	printf("urd %s\n", urd_version());
	return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
}

int main(int argc, char **argv)
{
	const struct urd_cmd *cmd;

	if (argc < 2) {
		fprintf(stderr, "urd: no command, see \"urd help\"\n");
		return URD_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cmd_help(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		return cmd_version(argc - 1, argv + 1);
	cmd = cmd_find(argv[1]);
	if (!cmd)
		return cmd_unknown(argv[1]);
	return cmd->run(argc - 1, argv + 1);
}
