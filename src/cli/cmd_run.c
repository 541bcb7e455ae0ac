// SPDX-License-Identifier: MIT
/*
 * urd run: the daemon.  Configuration first, then the probe, then urd itself;
 * this thread turns the ring.  Signals arrive through a descriptor that the ring
 * watches, so that nothing wakes while nothing happens.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/config_value.h"
#include "host/host.h"
#include "pool/slot.h"
#include "ring/probe.h"
#include "ring/reaper.h"

/* Options that one command line may set. */
#define SETS_MAX 1024
/* Strangers that are collected before the ring gets its turn. */
#define REAP_MAX 256

static const char usage[] =
	"usage: urd run [-c FILE] [-o KEY=VALUE]... [-- COMMAND [ARG]...]\n"
	"\n"
	"Starts the pools and listeners of FILE and serves until told to stop.\n"
	"COMMAND becomes the pool \"default\".\n"
	"\n"
	"  -c, --config FILE     configuration file\n"
	"  -o, --set KEY=VALUE   set one key, over the file; lists: comma-separated or\n"
	"                        repeated; as in pool.NAME.workers=4, log.level=debug\n"
	"      --check           check the configuration and exit\n"
	"  -h, --help            print this\n"
	"\n"
	"SIGTERM, SIGINT, SIGQUIT: take nothing new, finish what runs, stop; a second\n"
	"one: at once.  SIGHUP: replace all workers, one after the other.\n"
	"\n"
	"Exit status: 0 stopped; 1 failed; 2 wrong usage or configuration; 69 this\n"
	"system cannot run urd (\"urd probe\" tells more).\n";

struct daemon {
	struct urd *urd;
	const struct urd_config *config;
	u32 stops;
};

static void help_print(void)
{
	enum urd_section last = URD_SECTION_NR;

	fputs(usage, stdout);
	for (u32 i = 0; i < urd_keys_nr; i++) {
		const struct urd_key *key = &urd_keys[i];

		if (key->section != last && key->section == URD_SECTION_ROOT)
			printf("\nKeys at the top:\n\n");
		else if (key->section != last)
			printf("\nKeys of %s:\n\n",
			       key->section == URD_SECTION_LOG ? "log { }" : "pool \"NAME\" { }");
		last = key->section;
		printf("  %-20s  %s%s%s%s\n", key->name, key->help, *key->def ? " [" : "", key->def,
		       *key->def ? "]" : "");
	}
}

/* --- signals ------------------------------------------------------------------------ */

/* Everything that does not tell of a fault of our own or serves a shell's job control. */
static void signals_block(void)
{
	static const int stay[] = { SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,	SIGABRT,
				    SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT };
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(stay); i++)
		sigdelset(&set, stay[i]);
	urd_assert(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
}

static int signals_open(void)
{
	static const int ours[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGCHLD };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		sigaddset(&set, ours[i]);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static void stop_begin(struct daemon *d, int sig)
{
	u64 timeout_ns = d->config->values.drain_timeout_ns;
	char text[64];

	d->stops++;
	if (d->stops == 1) {
		urd_value_duration_show(timeout_ns, text, sizeof(text));
		pr_info(d->urd->log, NULL, "stopping signal=%s drain_timeout=%s", sigabbrev_np(sig),
			text);
		urd_drain(d->urd, timeout_ns);
	} else if (d->stops == 2) {
		pr_info(d->urd->log, NULL, "stopping at once signal=%s", sigabbrev_np(sig));
		urd_drain(d->urd, 0);
	}
}

static bool is_worker(pid_t pid, void *arg)
{
	const struct urd_core *core = arg;

	for (u32 i = 0; i < core->slots_nr; i++)
		if (core->slots[i].child.pid == pid)
			return true;
	return false;
}

/* Processes that workers left behind have ended. */
static void children_reap(struct daemon *d)
{
	u32 n = urd_reaper_collect(is_worker, &d->urd->core, REAP_MAX);

	if (n)
		pr_debug(d->urd->log, NULL, "collected strangers n=%u", n);
	if (n == REAP_MAX)
		(void)kill(getpid(), SIGCHLD); /* the rest next time */
}

static void reload_begin(struct daemon *d)
{
	int ret = urd_reload(d->urd, NULL);

	if (ret == -ESHUTDOWN)
		pr_info(d->urd->log, NULL, "no reload any more, urd is stopping");
	else
		pr_info(d->urd->log, NULL, "reload begun workers=%d", ret);
}

static void signal_arrived(int fd, void *arg)
{
	struct daemon *d = arg;
	struct signalfd_siginfo info;
	bool reap = false;

	while (read(fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap = true;
		else if (info.ssi_signo == SIGHUP)
			reload_begin(d);
		else if (info.ssi_signo != SIGUSR1)
			stop_begin(d, (int)info.ssi_signo);
	}
	if (reap)
		children_reap(d);
}

/* --- the daemon ------------------------------------------------------------------------ */

static void ready_tell(const struct daemon *d)
{
	const struct urd_conf *conf = &d->config->values.conf;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	for (u32 i = 0; i < conf->listen_nr; i++)
		fprintf(f, "%s%s%s", i ? "," : "listening on ", conf->listen[i].address,
			conf->listen[i].admin ? " (admin)" : "");
	for (u32 i = 0; i < conf->pools_nr; i++)
		fprintf(f, "%s%s", i ? "," : " pools=", conf->pools[i].name);
	if (fclose(f) == 0)
		pr_info(d->urd->log, NULL, "%s pid=%d", text, (int)getpid());
	free(text);
}

/* Why urd_open() failed, as an exit code: the system, the configuration, or else. */
static int open_failed(int ret, const char *err)
{
	char line[URD_PROBE_LINE_MAX];

	urd_probe_explain(ret, line, sizeof(line));
	if (!strcmp(line, err)) {
		fprintf(stderr, "urd run: cannot run here: %s\n", err);
		return URD_EXIT_UNSUPPORTED;
	}
	fprintf(stderr, "urd run: %s\n", *err ? err : strerror(-ret));
	return ret == -EINVAL ? URD_EXIT_USAGE : URD_EXIT_FAILED;
}

static int serve(const struct urd_config *config)
{
	struct daemon d = { .config = config };
	char err[URD_CONFIG_ERR_MAX] = "";
	int code = URD_EXIT_FAILED;
	int fd;
	int ret;

	signals_block();
	/* writes to workers that died fail with an error instead */
	signal(SIGPIPE, SIG_IGN);
	ret = urd_reaper_start();
	if (ret)
		fprintf(stderr, "urd run: cannot collect orphans: %s\n", strerror(-ret));
	fd = signals_open();
	if (fd < 0) {
		fprintf(stderr, "urd run: cannot make a signalfd: %s\n", strerror(-fd));
		return URD_EXIT_FAILED;
	}
	ret = urd_open(&config->values.conf, URD_OPEN_LOOP, &d.urd, err, sizeof(err));
	if (ret) {
		code = open_failed(ret, err);
		goto out_close;
	}
	ret = urd_on_readable(d.urd, fd, signal_arrived, &d);
	urd_assert(ret == 0);
	ready_tell(&d);
	urd_run(d.urd);
	code = URD_EXIT_OK;
	urd_close(d.urd);
out_close:
	close(fd);
	return code;
}

struct run_args {
	struct urd_config_args config;
	const char *sets[SETS_MAX];
	bool check;
};

/* Options; -1 to go on, else an exit code. */
static int args_parse(int argc, char **argv, struct run_args *args)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "set", required_argument, NULL, 'o' },
		{ "check", no_argument, NULL, 'k' },
		{ "help", no_argument, NULL, URD_OPT_HELP },
		{ 0 },
	};
	int c;

	while ((c = urd_cli_option(argc, argv, "c:o:h", longs)) != -1) {
		switch (c) {
		case 'c':
			if (args->config.file)
				return urd_cli_usage("run", "one configuration file at a time, use "
							    "include() for more");
			args->config.file = optarg;
			break;
		case 'o':
			if (args->config.sets_nr == SETS_MAX)
				return urd_cli_usage("run", "too many -o");
			args->sets[args->config.sets_nr++] = optarg;
			break;
		case 'k':
			args->check = true;
			break;
		case URD_OPT_HELP:
			help_print();
			return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
		default:
			return URD_EXIT_USAGE;
		}
	}
	if (optind < argc) {
		if (strcmp(argv[optind - 1], "--"))
			return urd_cli_usage("run", "\"%s\" is no option, a command goes after --",
					     argv[optind]);
		args->config.command = (const char *const *)&argv[optind];
	}
	return -1;
}

/*
 * Is the kernel fit?  Where RLIMIT_MEMLOCK is tight we only see when we try: the
 * kernel gives the memory of the probe's ring back some time after its end, and
 * urd's own ring would find it taken.
 */
static bool kernel_check(void)
{
	char line[URD_PROBE_LINE_MAX];
	struct urd_probe probe;

	urd_probe_env_read(&probe.env);
	if (!probe.env.cap_ipc_lock &&
	    probe.env.memlock_soft_bytes / 16 < probe.env.memlock_needed_bytes)
		return true;
	(void)urd_probe_run(&probe); /* the verdict tells */
	if (!urd_probe_verdict(&probe, line, sizeof(line)))
		return true;
	fprintf(stderr, "urd run: cannot run here: %s\n", line);
	return false;
}

int urd_cmd_run(int argc, char **argv)
{
	struct run_args args = { .check = false };
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *config;
	char listen[256];
	int code;

	args.config.sets = args.sets;
	args.config.listen = urd_cli_socket(listen, sizeof(listen));
	code = args_parse(argc, argv, &args);
	if (code >= 0)
		return code;
	if (urd_config_load(&args.config, &config, err, sizeof(err))) {
		fprintf(stderr, "urd run: %s\n", err);
		return URD_EXIT_USAGE;
	}
	if (args.check)
		code = URD_EXIT_OK;
	else if (!kernel_check())
		code = URD_EXIT_UNSUPPORTED;
	else
		code = serve(config);
	urd_config_free(config);
	return code;
}
