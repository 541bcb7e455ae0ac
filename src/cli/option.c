// SPDX-License-Identifier: MIT
/*
 * Options with errors that help: getopt parses, we speak.  Options end at the
 * first argument that is none, so that a command's own arguments, or a JSON
 * number like -5, are never taken for options of ours.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/suggest.h"

/* Bytes of a table of short options. */
#define SHORTS_MAX 32

static void option_unknown(const char *cmd, const char *arg, const struct option *longs)
{
	char word[URD_SUGGEST_MAX + 1];
	struct urd_suggest s;

	if (strncmp(arg, "--", 2)) {
		fprintf(stderr, "urd %s: no option \"%s\", see \"urd %s --help\"\n", cmd, arg, cmd);
		return;
	}
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
	urd_suggest_init(&s, word);
	for (; longs->name; longs++)
		urd_suggest_try(&s, longs->name);
	if (s.best)
		fprintf(stderr, "urd %s: no option \"--%s\", did you mean \"--%s\"?\n", cmd, word,
			s.best);
	else
		fprintf(stderr, "urd %s: no option \"--%s\", see \"urd %s --help\"\n", cmd, word,
			cmd);
}

/* Is @arg a long option of the table, given a value that it does not take? */
static bool option_takes_no_value(const char *arg, const struct option *longs)
{
	size_t len = strcspn(arg, "=");

	if (strncmp(arg, "--", 2) || !arg[len])
		return false;
	for (; longs->name; longs++) {
		if (strlen(longs->name) == len - 2 && !strncmp(longs->name, arg + 2, len - 2))
			return longs->has_arg == no_argument;
	}
	return false;
}

int urd_cli_option(int argc, char **argv, const char *shorts, const struct option *longs)
{
	char table[SHORTS_MAX];
	const char *arg;
	int at = optind;
	int c;

	urd_assert(strlen(shorts) + 3 <= sizeof(table));
	snprintf(table, sizeof(table), "+:%s", shorts);
	opterr = 0;
	c = getopt_long(argc, argv, table, longs, NULL);
	if (c != '?' && c != ':')
		return c;
	arg = argv[at < argc ? at : argc - 1];
	if (c == ':')
		fprintf(stderr, "urd %s: option \"%s\" needs a value\n", argv[0], arg);
	else if (option_takes_no_value(arg, longs))
		fprintf(stderr, "urd %s: option \"%.*s\" takes no value\n", argv[0],
			(int)strcspn(arg, "="), arg);
	else
		option_unknown(argv[0], arg, longs);
	return '?';
}

int urd_cli_usage(const char *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "urd %s: ", cmd);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ", see \"urd %s --help\"\n", cmd);
	return URD_EXIT_USAGE;
}

const char *urd_cli_socket(char *buf, size_t len)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	if (geteuid() != 0 && dir && *dir)
		snprintf(buf, len, "unix:%s/urd.sock", dir);
	else
		snprintf(buf, len, "unix:/run/urd/urd.sock");
	return buf;
}

bool urd_cli_flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	fprintf(stderr, "urd: cannot write to stdout: %s\n", strerror(errno));
	return false;
}
