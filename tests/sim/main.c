// SPDX-License-Identifier: MIT
/*
 * The simulator's command line.
 *
 *	sim [--list FILE] [--first N] [--seeds N] [--seconds N] [--twice] [--coverage]
 *	sim --seed N [--trace]
 *
 * --list runs the seeds of a file first, --twice compares two runs of each seed.
 * Runs one seed after the other and stops at the first that fails, which is
 * printed with all its options and what happened last.  Exit status 0 if all
 * went well, 1 if a seed failed.
 */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <urd/client.h>

#include "sim.h"

/* CPU seconds that one seed may take before it counts as hung. */
#define SEED_SECONDS 10

/* An assertion, a checker, a wild pointer, or a loop without an end. */
static void on_signal(int sig)
{
	fprintf(stderr, "sim: signal %d (%s)\n", sig,
		sig == SIGVTALRM ? "the code of one turn never ends" : strsignal(sig));
	fflush(stdout);
	sim_report();
	_exit(1);
}

static void watch(void)
{
	const struct itimerval limit = { .it_value = { .tv_sec = SEED_SECONDS } };

	setitimer(ITIMER_VIRTUAL, &limit, NULL);
}

static double cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static u64 run(u64 seed, bool trace)
{
	watch();
	world_run(seed, trace);
	return sim.hash;
}

/* Seeds that failed once, one a line; the rest of a line says why. */
static u64 run_list(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[512];
	u64 n = 0;

	if (!f) {
		fprintf(stderr, "sim: %s: %m\n", path);
		exit(2);
	}
	while (fgets(line, sizeof(line), f)) {
		if (line[0] < '0' || line[0] > '9')
			continue;
		(void)run(strtoull(line, NULL, 10), false);
		n++;
	}
	fclose(f);
	return n;
}

static void print_totals(u64 seeds, double seconds)
{
	printf("sim: %" PRIu64 " seeds, %" PRIu64 " requests, %" PRIu64 " turns, %" PRIu64
	       " workers, %.1f virtual s, %.1f CPU s, %.0f requests per CPU second\n",
	       seeds, sim_total.requests, sim_total.turns, sim_total.spawns,
	       (double)sim_total.virtual_ns / 1e9, seconds, (double)sim_total.requests / seconds);
	printf("outcomes:");
	for (u32 i = 0; i < URD_CODE_NR; i++)
		printf(" %s=%" PRIu64, urd_code_name((int)i), sim_total.outcomes[i]);
	putchar('\n');
}

static const struct option long_options[] = {
	{ "list", required_argument, NULL, 'l' },
	{ "first", required_argument, NULL, 'f' },
	{ "seeds", required_argument, NULL, 'n' },
	{ "seed", required_argument, NULL, 's' },
	{ "trace", no_argument, NULL, 't' },
	{ "twice", no_argument, NULL, '2' },
	{ "coverage", no_argument, NULL, 'c' },
	{ "seconds", required_argument, NULL, 'd' },
	{ NULL, 0, NULL, 0 },
};

int main(int argc, char **argv)
{
	u64 first = 1, seeds = 100, n = 0, listed = 0, seconds = UINT64_MAX;
	const char *list = NULL;
	bool trace = false, twice = false, coverage = false;
	double start = cpu_seconds();
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'l':
			list = optarg;
			break;
		case 'f':
			first = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			seeds = strtoull(optarg, NULL, 0);
			break;
		case 's':
			first = strtoull(optarg, NULL, 0);
			seeds = 1;
			break;
		case 'd':
			seconds = strtoull(optarg, NULL, 0);
			seeds = UINT64_MAX;
			break;
		case 't':
			trace = true;
			break;
		case '2':
			twice = true;
			break;
		case 'c':
			coverage = true;
			break;
		default:
			return 2;
		}
	}
	/* a world's memory is the next one's */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
	signal(SIGVTALRM, on_signal);
	if (list)
		listed = run_list(list);
	for (; n < seeds && cpu_seconds() - start < (double)seconds; n++) {
		u64 hash = run(first + n, trace);

		if (twice && run(first + n, false) != hash) {
			fprintf(stderr, "sim: seed %" PRIu64 " does not replay\n", first + n);
			return 1;
		}
	}
	print_totals(n + listed, cpu_seconds() - start);
	if (coverage)
		check_coverage();
	printf("%" PRIu64 " passed, 0 failed\n", n + listed);
	return 0;
}
