// SPDX-License-Identifier: MIT
/*
 * One question to the admin socket, for all commands that ask one.  Exit codes
 * are those of "urd call".
 */
#include "cli/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/config_value.h"
#include "cli/json.h"
#include "wire/mp.h"

/* Answers are given at once; whoever does not is stuck, in ms. */
#define ANSWER_MS 10000
#define ADMIN_SOCKET "unix:/run/urd/admin.sock"

static int timeout_parse(const char *text, struct urd_admin_args *a)
{
	struct urd_complaint why;
	u64 ns;

	if (urd_value_duration(text, true, &ns, &why)) {
		fprintf(stderr, "urd %s: --timeout: %s\n", a->cmd, why.text);
		return -EINVAL;
	}
	a->timeout_ms = ns == URD_OFF ? INT64_MAX : (s64)(ns / NSEC_PER_MSEC);
	return 0;
}

static int option_take(int c, struct urd_admin_args *a)
{
	switch (c) {
	case 's':
		a->socket = optarg;
		return -1;
	case 'j':
		a->json = true;
		return -1;
	case 't':
		return timeout_parse(optarg, a) ? URD_EXIT_USAGE : -1;
	case URD_OPT_HELP:
		fputs(a->usage, stdout);
		return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
	default:
		return URD_EXIT_USAGE;
	}
}

int urd_admin_args(int argc, char **argv, struct urd_admin_args *a)
{
	/* the first is passed over by commands that have no timeout */
	static const struct option longs[] = {
		{ "timeout", required_argument, NULL, 't' },
		{ "socket", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, URD_OPT_HELP },
		{ 0 },
	};
	int skip = a->timeout ? 0 : 1;
	int c, code, n;

	a->cmd = argv[0];
	a->socket = getenv("URD_ADMIN");
	a->timeout_ms = -1;
	if (!a->socket || !*a->socket)
		a->socket = ADMIN_SOCKET;
	while ((c = urd_cli_option(argc, argv, skip ? "s:h" : "s:t:h", longs + skip)) != -1) {
		code = option_take(c, a);
		if (code >= 0)
			return code;
	}
	a->args = argv + optind;
	n = argc - optind;
	if (n > a->args_max && !a->args_max)
		return urd_cli_usage(a->cmd, "takes no arguments");
	if (n < a->args_min || n > a->args_max)
		return urd_cli_usage(a->cmd, "takes %s, options go before", a->takes);
	return -1;
}

/* An error on one line of stderr, whatever is in its text. */
static void error_tell(const char *name, enum urd_executed executed, struct urd_span text)
{
	fprintf(stderr, "urd: %s (executed: %s): ", name, urd_executed_name(executed));
	for (u32 i = 0; i < text.len; i++)
		putc(text.p[i] < 0x20 || text.p[i] == 0x7f ? ' ' : text.p[i], stderr);
	putc('\n', stderr);
}

static struct urd_span span_of(const char *s)
{
	return (struct urd_span){ (const u8 *)s, (u32)strlen(s) };
}

/* urd's own error: what it says about this case is better than what it says in general. */
static int refusal_tell(const struct urd_answer *answer)
{
	struct urd_mp map = { answer->result, (const u8 *)answer->result + answer->result_len };
	struct urd_span text = span_of(answer->message);
	struct urd_span detail;
	struct urd_mp v;

	if (answer->result_len && !urd_mp_find(&map, "detail", &v) && !urd_mp_str(&v, &detail))
		text = detail;
	error_tell(urd_code_name((int)answer->code), answer->executed, text);
	switch (answer->executed) {
	case URD_EXECUTED_NO:
		return URD_EXIT_NOT_EXECUTED;
	case URD_EXECUTED_MAYBE:
		return URD_EXIT_MAYBE;
	case URD_EXECUTED_YES:
		break;
	}
	return URD_EXIT_FAILED;
}

static int answer_tell(const struct urd_admin_args *a, const struct urd_answer *answer,
		       urd_admin_fn show)
{
	struct urd_span result = { answer->result, (u32)answer->result_len };
	int ret;

	if (answer->code != URD_OK)
		return refusal_tell(answer);
	if (a->json) {
		ret = urd_json_print(result.p, result.len, stdout);
		putchar('\n');
	} else {
		ret = show(a, result);
	}
	if (ret) {
		fprintf(stderr, "urd %s: the answer makes no sense, is urd of another version?\n",
			a->cmd);
		return URD_EXIT_FAILED;
	}
	return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
}

static int failure_tell(int err)
{
	if (err == -ETIMEDOUT)
		error_tell("TIMEOUT", URD_EXECUTED_MAYBE, span_of("urd does not answer"));
	else if (err == -EPIPE)
		error_tell("IO", URD_EXECUTED_MAYBE,
			   span_of("urd closed the connection before it answered"));
	else
		error_tell("IO", URD_EXECUTED_MAYBE, span_of(strerror(-err)));
	return URD_EXIT_MAYBE;
}

int urd_admin_ask(const struct urd_admin_args *a, const char *method, struct urd_span params,
		  urd_admin_fn show)
{
	struct urd_client_opts opts = { .deadline_ms = ANSWER_MS };
	struct urd_client *client = NULL;
	struct urd_answer answer;
	char message[512];
	int code, ret;

	ret = urd_client_open(a->socket, &client);
	if (ret) {
		snprintf(message, sizeof(message), "cannot connect to %.300s: %s%s", a->socket,
			 strerror(-ret),
			 ret == -ENOENT ? "; is urd running, with the key admin set?" : "");
		error_tell("NO_CONNECT", URD_EXECUTED_NO, span_of(message));
		return URD_EXIT_NO_CONNECT;
	}
	ret = urd_client_call(client, method, params.p, params.len, &opts, &answer);
	code = ret ? failure_tell(ret) : answer_tell(a, &answer, show);
	urd_client_close(client);
	return code;
}
