// SPDX-License-Identifier: MIT
/*
 * urd probe: the table of what urd needs and what is here, for people or as
 * JSON.  Exit 0 if urd can run, 1 if not; then the last line says why.
 */
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"
#include "ring/probe.h"

static const char usage[] =
	"usage: urd probe [--json]\n"
	"\n"
	"Tells what urd needs of the kernel and of the limits of this process, and\n"
	"what is here.  Exit status: 0 urd can run, 1 it cannot; then one line on\n"
	"stderr names the cause and the cure.\n"
	"\n"
	"  --json      one JSON object instead of a table\n"
	"  -h, --help  print this\n";

static void bytes_print(const char *name, u64 v)
{
	if (v == UINT64_MAX)
		printf("  %-22s unlimited\n", name);
	else
		printf("  %-22s %llu KiB\n", name, (unsigned long long)v / 1024);
}

static const char *seccomp_name(int mode)
{
	static const char *const names[] = { "none", "strict", "filter" };

	return mode >= 0 && mode < (int)ARRAY_SIZE(names) ? names[mode] : "unknown";
}

static void table_print(const struct urd_probe *p)
{
	const struct urd_probe_env *env = &p->env;

	printf("environment\n");
	printf("  %-22s %s\n", "kernel", env->release);
	printf("  %-22s %u\n", "cores", p->cores);
	if (env->sysctl_disabled >= 0)
		printf("  %-22s %d\n", "io_uring_disabled", env->sysctl_disabled);
	else
		printf("  %-22s no such sysctl\n", "io_uring_disabled");
	printf("  %-22s %lld%s\n", "io_uring_group", (long long)env->sysctl_group,
	       env->sysctl_group < 0 ? " (none)" :
	       env->group_member     ? " (member)" :
				       " (not a member)");
	printf("  %-22s %s\n", "seccomp", seccomp_name(env->seccomp));
	bytes_print("memlock soft", env->memlock_soft_bytes);
	bytes_print("memlock hard", env->memlock_hard_bytes);
	bytes_print("memlock needed", env->memlock_needed_bytes);
	printf("  %-22s %s\n", "CAP_IPC_LOCK",
	       env->cap_ipc_lock ? "yes (memlock does not bind)" : "no");
	printf("\n%-22s %-9s %-8s %s\n", "feature", "needed", "here", "what for");
	for (u32 i = 0; i < p->features_nr; i++)
		printf("%-22s %-9s %-8s %s\n", p->features[i].name,
		       p->features[i].required ? "required" : "optional",
		       p->features[i].present ? "yes" : "no", p->features[i].what);
	printf("\n");
}

/* A limit as JSON: bytes, or null for none. */
static json_t *json_limit(u64 v)
{
	return v == UINT64_MAX ? json_null() : json_integer((json_int_t)v);
}

static int json_print(const struct urd_probe *p, bool ok, const char *line)
{
	const struct urd_probe_env *env = &p->env;
	json_t *features = json_array();
	json_t *root;
	int ret;

	for (u32 i = 0; features && i < p->features_nr; i++)
		json_array_append_new(features,
				      json_pack("{s:s, s:s, s:b, s:b}", "name", p->features[i].name,
						"what", p->features[i].what, "required",
						p->features[i].required, "present",
						p->features[i].present));
	root = json_pack("{s:b, s:s?, s:s, s:i, s:i, s:I, s:b, s:s, s:o, s:o, s:o, s:b, s:o}", "ok",
			 ok, "reason", ok ? NULL : line, "kernel", env->release, "cores",
			 (int)p->cores, "io_uring_disabled", env->sysctl_disabled, "io_uring_group",
			 (json_int_t)env->sysctl_group, "io_uring_group_member", env->group_member,
			 "seccomp", seccomp_name(env->seccomp), "memlock_soft_bytes",
			 json_limit(env->memlock_soft_bytes), "memlock_hard_bytes",
			 json_limit(env->memlock_hard_bytes), "memlock_needed_bytes",
			 json_limit(env->memlock_needed_bytes), "cap_ipc_lock", env->cap_ipc_lock,
			 "features", features);
	ret = root ? json_dumpf(root, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER) : -1;
	printf("\n");
	json_decref(root);
	return ret;
}

int urd_cmd_probe(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, URD_OPT_HELP },
		{ 0 },
	};
	char line[URD_PROBE_LINE_MAX];
	struct urd_probe probe;
	bool json = false;
	bool ok;
	int c;

	while ((c = urd_cli_option(argc, argv, "h", longs)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case URD_OPT_HELP:
			fputs(usage, stdout);
			return urd_cli_flush() ? URD_EXIT_OK : URD_EXIT_FAILED;
		default:
			return URD_EXIT_USAGE;
		}
	}
	if (optind < argc)
		return urd_cli_usage("probe", "takes no arguments");

	(void)urd_probe_run(&probe); /* the verdict tells */
	ok = urd_probe_verdict(&probe, line, sizeof(line)) == 0;
	if (json && json_print(&probe, ok, line) < 0) {
		fprintf(stderr, "urd probe: cannot write JSON\n");
		return URD_EXIT_FAILED;
	}
	if (!json) {
		table_print(&probe);
		if (ok)
			printf("urd can run here\n");
	}
	if (!urd_cli_flush())
		return URD_EXIT_FAILED;
	if (!ok)
		fprintf(stderr, "urd: cannot run here: %s\n", line);
	return ok ? URD_EXIT_OK : URD_EXIT_FAILED;
}
