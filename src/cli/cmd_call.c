// SPDX-License-Identifier: MIT
/*
 * urd call: one request to a running urd, JSON in and out.  The exit code tells
 * a script the one thing it needs to know before it tries again: whether the
 * request was executed.  A signal to stop cancels the request first.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <urd/client.h>

#include "cli/cli.h"
#include "cli/config_value.h"
#include "cli/json.h"
#include "wire/mp.h"

/* urd's own answer comes a moment after the time is up, and says more than we could. */
#define ANSWER_GRACE_MS 50u
/* How long the answer to a cancelled request is waited for. */
#define CANCEL_WAIT_MS 1000u

static const char usage[] =
	"usage: urd call [OPTION]... [POOL/]METHOD [PARAMS]\n"
	"\n"
	"Sends one request to a running urd and prints the answer as one line of JSON.\n"
	"PARAMS is JSON, or \"-\" for standard input, or @FILE; absent means null.\n"
	"\n"
	"  -s, --socket ADDRESS  where urd listens: unix:/path, /path, tcp:host:port;\n"
	"                        else $URD_SOCKET, else the default of \"urd run\"\n"
	"  -t, --timeout TIME    wait no longer, like 5s or 500ms; urd is told as well\n"
	"      --stream          print each chunk of the answer as a line, as it comes;\n"
	"                        the result that follows only with --with-result\n"
	"      --with-result     with --stream, print the result too, as the last line\n"
	"      --progress        print progress on stderr, as it comes\n"
	"      --raw             PARAMS (\"-\" or @FILE) and answer are MessagePack\n"
	"      --json-errors     errors on stderr as one line of JSON\n"
	"  -h, --help            print this\n"
	"\n"
	"Ctrl-C cancels the request and waits up to a second for what comes of it.\n"
	"\n"
	"Exit status: 0 success; 1 the worker answered with an error; 2 wrong usage;\n"
	"3 failed, not executed; 4 failed, perhaps executed; 5 cannot connect.\n"
	"\n"
	"What JSON lacks: bytes are {\"$bin\": BASE64}, extension types\n"
	"{\"$ext\": [TYPE, BASE64]}, and {\"$float\": \"nan\"}, \"inf\" or \"-inf\".\n";

struct call_args {
	const char *socket;
	const char *method;
	const char *params;
	struct urd_client_opts opts;
	bool raw;
	bool json_errors;
	bool with_result;
};

/* struct waiting - the request that is waited for, at most until @until_ms */
struct waiting {
	struct urd_client *client;
	u32 msgid;
	u64 until_ms;
	bool cancelled;
};

/* Read everything behind a descriptor. */
static int fd_read_all(int fd, struct urd_json_buf *buf)
{
	for (;;) {
		ssize_t n;

		if (buf->len == buf->cap) {
			size_t cap = buf->cap ? buf->cap * 2 : 65536;
			u8 *p = realloc(buf->p, cap);

			if (!p)
				return -ENOMEM;
			buf->p = p;
			buf->cap = cap;
		}
		n = read(fd, buf->p + buf->len, buf->cap - buf->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		buf->len += (size_t)n;
	}
}

static int source_read(const char *params, struct urd_json_buf *buf)
{
	int fd = STDIN_FILENO;
	int ret;

	if (*params == '@') {
		fd = open(params + 1, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			ret = -errno;
			fprintf(stderr, "urd call: cannot open %s: %s\n", params + 1,
				strerror(-ret));
			return ret;
		}
	}
	ret = fd_read_all(fd, buf);
	if (ret)
		fprintf(stderr, "urd call: cannot read %s: %s\n",
			fd == STDIN_FILENO ? "standard input" : params + 1, strerror(-ret));
	if (fd != STDIN_FILENO)
		close(fd);
	return ret;
}

/* The params as MessagePack in @out; an error was told. */
static int params_read(const struct call_args *args, struct urd_json_buf *out)
{
	struct urd_json_buf text = { .p = NULL };
	const char *params = args->params ? args->params : "null";
	bool source = !strcmp(params, "-") || *params == '@';
	char err[URD_JSON_ERR_MAX];
	int ret;

	if (source) {
		ret = source_read(params, args->raw && args->params ? out : &text);
		if (ret)
			goto out_free;
	}
	if (args->raw && source) {
		if (urd_mp_len(out->p, out->len) != (s64)out->len || !out->len) {
			fprintf(stderr, "urd call: the input is not one MessagePack value\n");
			ret = -EINVAL;
		}
		goto out_free;
	}
	if (source)
		ret = urd_json_pack((char *)text.p, text.len, out, err, sizeof(err));
	else
		ret = urd_json_pack(params, strlen(params), out, err, sizeof(err));
	if (ret)
		fprintf(stderr, "urd call: params are %s\n", err);
out_free:
	free(text.p);
	return ret;
}

/* Text on one line, whatever is in it. */
static void line_print(const char *text)
{
	for (; *text; text++)
		putc((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text, stderr);
}

/* Text as a JSON string: by way of MessagePack, our writer knows how. */
static void json_text_print(const char *text)
{
	u8 head[5] = { 0xdb };
	size_t len = strlen(text);
	u8 *value = malloc(len + sizeof(head));

	if (!value)
		return;
	put_be32(head + 1, (u32)len);
	memcpy(value, head, sizeof(head));
	memcpy(value + sizeof(head), text, len);
	/* well formed by construction; the text stays at hand if not */
	if (urd_json_print(value, len + sizeof(head), stderr))
		fprintf(stderr, "null");
	free(value);
}

static int error_tell(const struct call_args *args, int code, const char *name,
		      enum urd_executed executed, const char *message,
		      const struct urd_answer *answer)
{
	if (args->json_errors) {
		if (code >= 0)
			fprintf(stderr, "{\"code\":%d", code);
		else
			fprintf(stderr, "{\"code\":null");
		fprintf(stderr, ",\"name\":\"%s\",\"executed\":\"%s\",\"message\":", name,
			urd_executed_name(executed));
		json_text_print(message);
		fprintf(stderr, ",\"error\":");
		if (!answer || !answer->result_len ||
		    urd_json_print(answer->result, answer->result_len, stderr))
			fprintf(stderr, "null");
		fprintf(stderr, "}\n");
	} else {
		fprintf(stderr, "urd: %s (executed: %s): ", name, urd_executed_name(executed));
		line_print(message);
		fprintf(stderr, "\n");
	}
	if (executed == URD_EXECUTED_NO)
		return URD_EXIT_NOT_EXECUTED;
	return executed == URD_EXECUTED_MAYBE ? URD_EXIT_MAYBE : URD_EXIT_FAILED;
}

/* Counts signals; a handler has no other way to know it. */
static int signals_fd = -1;

static void signal_note(int sig)
{
	int err = errno;

	(void)sig;
	(void)eventfd_write(signals_fd, 1); /* fails after 2^64 signals */
	errno = err;
}

/*
 * From now on, what ends a program is counted. A handler, not a signalfd: a write
 * to a reader that stands still is to be interrupted, too.
 */
static int signals_open(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	const struct sigaction note = { .sa_handler = signal_note };
	struct sigaction old;

	signals_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (signals_fd < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		if (!sigaction(sigs[i], NULL, &old) && old.sa_handler != SIG_IGN)
			(void)sigaction(sigs[i], &note, NULL);
	return 0;
}

static bool signals_came(void)
{
	eventfd_t n;

	return eventfd_read(signals_fd, &n) == 0;
}

/* Write all of it. Return: 0, -EINTR (a signal came, and nobody reads), -EIO; it was told. */
static int bytes_write(const void *bytes, size_t len)
{
	struct pollfd p[] = {
		{ .fd = STDOUT_FILENO, .events = POLLOUT },
		{ .fd = signals_fd, .events = POLLIN },
	};
	const u8 *at = bytes;
	ssize_t n;

	while (len) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return -EIO;
		if (!p[0].revents && p[1].revents)
			return -EINTR;
		if (!p[0].revents)
			continue;
		/* so much goes into a pipe that has room, without a wait */
		n = write(STDOUT_FILENO, at, urd_min(len, (size_t)PIPE_BUF));
		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			fprintf(stderr, "urd: cannot write to stdout: %s\n", strerror(errno));
			return -EIO;
		}
		at += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* A value as a line of JSON in memory. Return: 0 or negative errno. */
static int value_text(const struct urd_answer *answer, char **text, size_t *len)
{
	FILE *f = open_memstream(text, len);
	int ret;

	if (!f)
		return -errno;
	ret = urd_json_print(answer->result, answer->result_len, f);
	putc('\n', f);
	if (fclose(f) && !ret)
		ret = -ENOMEM;
	return ret;
}

/*
 * A value on stdout, past stdio: what reads it may stand still, and a signal is
 * heeded all the same. Return: 0, -EINTR, -EIO; the latter was told.
 */
static int value_print(const struct call_args *args, const struct urd_answer *answer)
{
	char *text = NULL;
	size_t len = 0;
	int ret;

	if (args->raw)
		return bytes_write(answer->result, answer->result_len);
	ret = value_text(answer, &text, &len);
	if (ret) {
		fprintf(stderr, "urd call: the answer cannot be written as JSON (%s), try --raw\n",
			ret == -E2BIG ? "nested too deep" : strerror(-ret));
		ret = -EIO;
	} else {
		ret = bytes_write(text, len);
	}
	free(text);
	return ret;
}

static int answer_tell(const struct call_args *args, const struct urd_answer *answer)
{
	if (answer->code == URD_APP)
		(void)error_tell(args, URD_APP, urd_code_name(URD_APP), URD_EXECUTED_YES,
				 answer->message, answer);
	if (answer->code == URD_APP)
		return URD_EXIT_FAILED;
	if (answer->code != URD_OK)
		return error_tell(args, (int)answer->code, urd_code_name((int)answer->code),
				  answer->executed, answer->message, answer);
	if ((!args->opts.stream || args->with_result) && value_print(args, answer))
		return URD_EXIT_FAILED;
	return URD_EXIT_OK;
}

/* What comes before the answer. Return: as value_print(). */
static int part_tell(const struct call_args *args, const struct urd_answer *part)
{
	if (part->kind == URD_KIND_CHUNK)
		return value_print(args, part);
	fprintf(stderr, args->json_errors ? "{\"progress\":" : "urd: progress: ");
	if (urd_json_print(part->result, part->result_len, stderr))
		fprintf(stderr, "null");
	fprintf(stderr, args->json_errors ? "}\n" : "\n");
	return 0;
}

static int failure_tell(const struct call_args *args, int err)
{
	switch (err) {
	case -ETIMEDOUT:
		return error_tell(args, -1, "TIMEOUT", URD_EXECUTED_MAYBE,
				  "no answer came within the time given by --timeout", NULL);
	case -EINTR:
		return error_tell(args, -1, "INTERRUPTED", URD_EXECUTED_MAYBE,
				  "cancelled by a signal, and no answer came", NULL);
	case -EMSGSIZE:
		return error_tell(args, URD_TOO_LARGE, urd_code_name(URD_TOO_LARGE),
				  URD_EXECUTED_NO, "the request is larger than 16 MiB", NULL);
	case -EINVAL:
		return error_tell(args, URD_BAD_REQUEST, urd_code_name(URD_BAD_REQUEST),
				  URD_EXECUTED_NO, "the method or the params are malformed", NULL);
	case -EPIPE:
		return error_tell(args, URD_IO, urd_code_name(URD_IO), URD_EXECUTED_MAYBE,
				  "urd closed the connection before it answered", NULL);
	default:
		return error_tell(args, URD_IO, urd_code_name(URD_IO), URD_EXECUTED_MAYBE,
				  strerror(-err), NULL);
	}
}

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / NSEC_PER_MSEC;
}

/*
 * The first signal cancels the request and leaves it little time; the second one
 * ends the wait. Return: 0 to go on, -EINTR, or as urd_client_cancel().
 */
static int signals_heed(struct waiting *w)
{
	if (!signals_came())
		return 0;
	if (w->cancelled)
		return -EINTR;
	w->cancelled = true;
	w->until_ms = urd_min(w->until_ms, now_ms() + CANCEL_WAIT_MS);
	return urd_client_cancel(w->client, w->msgid);
}

/* Wait for bytes or a signal. Return: 0, -ETIMEDOUT, or as signals_heed(). */
static int call_wait(struct waiting *w)
{
	struct pollfd p[] = {
		{ .fd = urd_client_fd(w->client), .events = urd_client_events(w->client) },
		{ .fd = signals_fd, .events = POLLIN },
	};
	u64 now = now_ms();
	int timeout_ms = -1;

	if (now >= w->until_ms)
		return w->cancelled ? -EINTR : -ETIMEDOUT;
	if (w->until_ms != URD_NEVER)
		timeout_ms = (int)urd_min(w->until_ms - now, (u64)INT32_MAX);
	if (poll(p, ARRAY_SIZE(p), timeout_ms) < 0 && errno != EINTR)
		return -errno;
	return signals_heed(w);
}

/* Tell whatever comes. Return: 0 and @code with the answer, else negative errno. */
static int parts_tell(const struct call_args *args, struct waiting *w, int *code)
{
	struct urd_answer answer;
	int ret;

	for (;;) {
		ret = urd_client_turn(w->client, &answer);
		if (ret < 0)
			return ret;
		if (!ret) {
			ret = call_wait(w);
		} else if (answer.kind == URD_KIND_ANSWER) {
			*code = answer_tell(args, &answer);
			return 0;
		} else {
			ret = part_tell(args, &answer);
			if (!ret)
				ret = signals_heed(w);
		}
		if (ret)
			return ret;
	}
}

/* Send the request and tell what comes of it. Return: an exit code. */
static int request_run(const struct call_args *args, struct urd_client *client,
		       const struct urd_json_buf *params)
{
	struct waiting w = { .client = client, .until_ms = URD_NEVER };
	struct urd_answer answer;
	int code = URD_EXIT_FAILED;
	int ret;

	ret = signals_open();
	if (ret)
		return failure_tell(args, ret);
	if (args->opts.deadline_ms)
		w.until_ms = now_ms() + args->opts.deadline_ms + ANSWER_GRACE_MS;
	ret = urd_client_send(client, args->method, params->p, params->len, &args->opts, &w.msgid);
	if (!ret)
		ret = parts_tell(args, &w, &code);
	if (!ret)
		return code;
	if (ret == -ETIMEDOUT || ret == -EINTR || ret == -EIO) {
		(void)urd_client_cancel(client, w.msgid);
		(void)urd_client_turn(client, &answer);
	}
	return ret == -EIO ? URD_EXIT_FAILED : failure_tell(args, ret);
}

static int call_do(const struct call_args *args)
{
	struct urd_json_buf params = { .p = NULL };
	struct urd_client *client = NULL;
	char message[512];
	int code = URD_EXIT_USAGE;
	int ret = params_read(args, &params);

	if (ret)
		goto out_free;
	ret = urd_client_open(args->socket, &client);
	if (ret) {
		snprintf(message, sizeof(message), "cannot connect to %.300s: %s", args->socket,
			 strerror(-ret));
		(void)error_tell(args, -1, "NO_CONNECT", URD_EXECUTED_NO, message, NULL);
		code = URD_EXIT_NO_CONNECT;
		goto out_free;
	}
	code = request_run(args, client, &params);
out_free:
	urd_client_close(client);
	free(params.p);
	return code;
}

static int timeout_parse(const char *text, struct call_args *args)
{
	struct urd_complaint why;
	u64 ns;

	if (urd_value_duration(text, true, &ns, &why)) {
		fprintf(stderr, "urd call: --timeout: %s\n", why.text);
		return -EINVAL;
	}
	if (ns == URD_OFF) {
		args->opts.deadline_ms = 0;
		return 0;
	}
	ns = ns / NSEC_PER_MSEC + (ns % NSEC_PER_MSEC != 0);
	if (!ns || ns > UINT32_MAX) {
		fprintf(stderr,
			"urd call: --timeout: \"%s\" is out of range, write 1ms to 49d or "
			"\"off\"\n",
			text);
		return -EINVAL;
	}
	args->opts.deadline_ms = (u32)ns;
	return 0;
}

/* What is no option; -1 to go on, else an exit code. */
static int args_take(int argc, char **argv, struct call_args *args)
{
	if (optind == argc || !*argv[optind])
		return urd_cli_usage("call", "no method");
	args->method = argv[optind++];
	if (optind < argc)
		args->params = argv[optind++];
	if (optind < argc)
		return urd_cli_usage("call",
				     "\"%s\" is one argument too many, options go before the "
				     "method",
				     argv[optind]);
	if (args->raw && args->params && strcmp(args->params, "-") && *args->params != '@')
		return urd_cli_usage("call", "--raw takes params from \"-\" or @FILE");
	if (args->with_result && !args->opts.stream)
		return urd_cli_usage("call", "--with-result goes with --stream");
	return -1;
}

/* Options; -1 to go on, else an exit code. */
static int args_parse(int argc, char **argv, struct call_args *args)
{
	static const struct option longs[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "timeout", required_argument, NULL, 't' },
		{ "stream", no_argument, NULL, 'c' },
		{ "with-result", no_argument, NULL, 'w' },
		{ "progress", no_argument, NULL, 'p' },
		{ "raw", no_argument, NULL, 'r' },
		{ "json-errors", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, URD_OPT_HELP },
		{ 0 },
	};
	int c;

	while ((c = urd_cli_option(argc, argv, "s:t:h", longs)) != -1) {
		switch (c) {
		case 's':
			args->socket = optarg;
			break;
		case 't':
			if (timeout_parse(optarg, args))
				return URD_EXIT_USAGE;
			break;
		case 'c':
			args->opts.stream = true;
			break;
		case 'w':
			args->with_result = true;
			break;
		case 'p':
			args->opts.progress = true;
			break;
		case 'r':
			args->raw = true;
			break;
		case 'j':
			args->json_errors = true;
			break;
		case URD_OPT_HELP:
			fputs(usage, stdout);
			return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
		default:
			return URD_EXIT_USAGE;
		}
	}
	return args_take(argc, argv, args);
}

int urd_cmd_call(int argc, char **argv)
{
	struct call_args args = { .socket = getenv("URD_SOCKET") };
	char socket[256];
	char path[256];
	int code;

	if (!args.socket || !*args.socket)
		args.socket = urd_cli_socket(socket, sizeof(socket));
	code = args_parse(argc, argv, &args);
	if (code >= 0)
		return code;
	if (strncmp(args.socket, "unix:", 5) && strncmp(args.socket, "tcp:", 4)) {
		snprintf(path, sizeof(path), "unix:%s", args.socket);
		args.socket = path;
	}
	return call_do(&args);
}
