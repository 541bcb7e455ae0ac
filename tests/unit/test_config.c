// SPDX-License-Identifier: MIT
/*
 * The configuration: values with units, the key table against the header's
 * defaults and the manual, whole files, -o, and the exact words of errors.
 */
#include <criterion/criterion.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/config.h"
#include "cli/config_value.h"
#include "cli/suggest.h"

#define MANUAL "docs/config.md"

/* A file that is gone when the test is. */
struct temp {
	char path[64];
};

static struct temp temp_new(const char *text)
{
	struct temp t = { "/tmp/urd-test-config-XXXXXX" };
	int fd = mkstemp(t.path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	return t;
}

static int load(const char *text, const char *const *sets, u32 sets_nr, const char *const *command,
		struct urd_config **config, char *err)
{
	struct urd_config_args args = { .sets = sets, .sets_nr = sets_nr, .command = command };
	struct temp t;
	char *at;
	int ret;

	if (text) {
		t = temp_new(text);
		args.file = t.path;
	}
	*config = NULL;
	ret = urd_config_load(&args, config, err, URD_CONFIG_ERR_MAX);
	if (text) {
		unlink(t.path);
		/* errors name the file; the tests call it F */
		while (ret && (at = strstr(err, t.path))) {
			*at = 'F';
			memmove(at + 1, at + strlen(t.path), strlen(at + strlen(t.path)) + 1);
		}
	}
	return ret;
}

/* --- values ---------------------------------------------------------------------- */

Test(config_value, durations)
{
	static const struct {
		const char *text;
		u64 ns;
	} good[] = {
		{ "0", 0 },
		{ "0s", 0 },
		{ "1us", 1000 },
		{ "50ms", 50000000 },
		{ "30s", 30 * URD_SEC },
		{ "1m", 60 * URD_SEC },
		{ "1m30s", 90 * URD_SEC },
		{ "1d2h3m4s5ms6us", 93784 * URD_SEC + 5 * URD_MSEC + 6 * URD_USEC },
		{ "off", URD_OFF },
	};
	static const char *const bad[] = {
		"",	"30", "-1s", "1.5s", "1 s",  "1s1m",	 "1s1s",
		"1y",	"s",  "1ns", "OFF",  "1m30", "1000000d", "99999999999999999999s",
		"0x1s", "1s "
	};
	struct urd_complaint why;
	char text[64];
	u64 ns;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		cr_assert_eq(urd_value_duration(good[i].text, true, &ns, &why), 0, "%s",
			     good[i].text);
		cr_expect_eq(ns, good[i].ns, "%s", good[i].text);
		urd_value_duration_show(ns, text, sizeof(text));
		cr_assert_eq(urd_value_duration(text, true, &ns, &why), 0, "%s", text);
		cr_expect_eq(ns, good[i].ns, "%s as %s", good[i].text, text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_expect_eq(urd_value_duration(bad[i], true, &ns, &why), -EINVAL, "%s", bad[i]);
	cr_expect_eq(urd_value_duration("off", false, &ns, &why), -EINVAL);
}

Test(config_value, sizes)
{
	static const struct {
		const char *text;
		u64 bytes;
	} good[] = {
		{ "0", 0 },	      { "4096", 4096 },	      { "5000B", 5000 },
		{ "1KiB", 1024 },     { "16K", 16384 },	      { "3MiB", 3ull << 20 },
		{ "3M", 3ull << 20 }, { "2GiB", 2ull << 30 }, { "2G", 2ull << 30 },
	};
	static const char *const bad[] = { "",	   "4097",	   "1KB",   "1kb", "1k",
					   "1Mib", "1TiB",	   "-1B",   "1 K", "1.5M",
					   "KiB",  "99999999999G", "1KiB1B" };
	struct urd_complaint why;
	char text[64];
	u64 bytes;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		cr_assert_eq(urd_value_size(good[i].text, &bytes, &why), 0, "%s", good[i].text);
		cr_expect_eq(bytes, good[i].bytes, "%s", good[i].text);
		urd_value_size_show(bytes, text, sizeof(text));
		cr_assert_eq(urd_value_size(text, &bytes, &why), 0, "%s", text);
		cr_expect_eq(bytes, good[i].bytes, "%s as %s", good[i].text, text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_expect_eq(urd_value_size(bad[i], &bytes, &why), -EINVAL, "%s", bad[i]);
}

Test(config_value, addresses)
{
	struct urd_listen_conf listen;
	struct urd_complaint why;
	char full[] = "unix:/run/x.sock?mode=0600&owner=root&group=0";
	char tcp[] = "tcp:[::1]:7070";
	char plain[] = "unix:./u.sock";

	cr_assert_eq(urd_value_listen(full, &listen, &why), 0, "%s", why.text);
	cr_expect_str_eq(listen.address, "unix:/run/x.sock");
	cr_expect_eq(listen.mode, 0600);
	cr_expect_eq(listen.uid, 0);
	cr_expect_eq(listen.gid, 0);
	cr_assert_eq(urd_value_listen(tcp, &listen, &why), 0, "%s", why.text);
	cr_expect_str_eq(listen.address, "tcp:[::1]:7070");
	cr_assert_eq(urd_value_listen(plain, &listen, &why), 0, "%s", why.text);
	cr_expect_eq(listen.mode, 0);
	cr_expect_eq(listen.uid, (uid_t)-1);
	cr_expect_eq(listen.gid, (gid_t)-1);
}

Test(config_value, suggestions)
{
	struct urd_suggest s;

	cr_expect_eq(urd_edit_distance("", "abc"), 3);
	cr_expect_eq(urd_edit_distance("abc", "abc"), 0);
	cr_expect_eq(urd_edit_distance("wrokers", "workers"), 1);
	cr_expect_eq(urd_edit_distance("kitten", "sitting"), 3);
	urd_suggest_init(&s, "zzzzzz");
	urd_suggest_try(&s, "workers");
	cr_expect_null(s.best);
}

/* --- the table ------------------------------------------------------------------------ */

/* What the table says about defaults is what the header says. */
Test(config_keys, defaults_are_the_headers)
{
	static const char *const command[] = { "true", NULL };
	static const struct urd_pool_conf pool = URD_POOL_CONF_INIT;
	static const struct urd_conf conf = URD_CONF_INIT;
	const char *sets[URD_KEYS_MAX];
	char text[URD_KEYS_MAX][96];
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;
	u32 n = 0;

	for (u32 i = 0; i < urd_keys_nr; i++) {
		if (!*urd_keys[i].def)
			continue;
		snprintf(text[n], sizeof(text[n]), "%s%s%s=%s",
			 urd_section_name(urd_keys[i].section),
			 urd_keys[i].section == URD_SECTION_ROOT ? "" :
			 urd_keys[i].section == URD_SECTION_LOG	 ? "." :
								   ".default.",
			 urd_keys[i].name, urd_keys[i].def);
		sets[n] = text[n];
		n++;
	}
	cr_assert_eq(load(NULL, sets, n, command, &c, err), 0, "%s", err);
	cr_expect_eq(c->values.conf.memory, conf.memory);
	cr_expect_eq(c->values.conf.conns_max, conf.conns_max);
	cr_expect_eq(c->values.conf.conn_inflight_max, conf.conn_inflight_max);
	cr_expect_eq(c->values.conf.client_write_timeout_ns, conf.client_write_timeout_ns);
	cr_expect_eq(c->values.conf.log_line_max, conf.log_line_max);
	cr_expect_eq(c->values.conf.log_format, conf.log_format);
	cr_expect_eq(c->values.conf.log_level, URD_LOG_INFO); /* a daemon tells more */
	cr_expect_eq(c->values.drain_timeout_ns, 30 * URD_SEC);
	cr_expect_eq(c->values.conf.pools[0].boot_timeout_ns, pool.boot_timeout_ns);
	cr_expect_eq(c->values.conf.pools[0].queue_timeout_ns, pool.queue_timeout_ns);
	cr_expect_eq(c->values.conf.pools[0].exec_timeout_ns, pool.exec_timeout_ns);
	cr_expect_eq(c->values.conf.pools[0].stop_timeout_ns, pool.stop_timeout_ns);
	cr_expect_eq(c->values.conf.pools[0].cancel_grace_ns, pool.cancel_grace_ns);
	cr_expect_eq(c->values.conf.pools[0].queue_max, pool.queue_max);
	cr_expect_eq(c->values.conf.pools[0].queue_max_bytes, pool.queue_max_bytes);
	cr_expect_eq(c->values.conf.pools[0].request_max, pool.request_max);
	cr_expect_eq(c->values.conf.pools[0].response_max, pool.response_max);
	cr_expect_eq(c->values.conf.pools[0].backoff_min_ns, pool.backoff_min_ns);
	cr_expect_eq(c->values.conf.pools[0].backoff_max_ns, pool.backoff_max_ns);
	cr_expect_eq(c->values.conf.pools[0].protocol, pool.protocol);
	cr_expect_eq(c->values.conf.pools[0].gone, pool.gone);
	cr_expect_eq(c->values.conf.pools[0].clear_env, pool.clear_env);
	urd_config_free(c);
}

/* config_file.c counts on these three to stand together */
Test(config_keys, order)
{
	const struct urd_key *workers = urd_key_find(URD_SECTION_POOL, "workers");

	cr_assert_not_null(workers);
	cr_expect_str_eq(workers[1].name, "min_workers");
	cr_expect_str_eq(workers[2].name, "max_workers");
}

/* Each key has its row in the manual, with the same default and the same words. */
Test(config_keys, manual_is_complete)
{
	static char manual[65536];
	FILE *f = fopen(MANUAL, "r");
	size_t len;
	u32 rows = 0;

	cr_assert_not_null(f, "%s: %s", MANUAL, strerror(errno));
	len = fread(manual, 1, sizeof(manual) - 1, f);
	fclose(f);
	manual[len] = '\0';
	for (u32 i = 0; i < urd_keys_nr; i++) {
		const struct urd_key *key = &urd_keys[i];
		char begin[96];
		char end[256];
		const char *row;

		snprintf(begin, sizeof(begin), "\n| `%s` | ", key->name);
		snprintf(end, sizeof(end), " | %s%s%s | %s |\n", *key->def ? "`" : "", key->def,
			 *key->def ? "`" : "", key->help);
		row = strstr(manual, begin);
		cr_expect(row && strstr(row, end) && strstr(row, end) < strchr(row + 1, '\n'),
			  "the manual lacks %s...%s", begin + 1, end);
	}
	for (const char *p = manual; (p = strstr(p, "\n| `")); p++)
		rows += !strstr(p, "| `us`") || strstr(p, "| `us`") != p + 1;
	cr_expect_eq(rows, urd_keys_nr, "the manual has %u rows for %u keys", rows, urd_keys_nr);
}

/* --- whole files -------------------------------------------------------------------------- */

Test(config, everything)
{
	static const char text[] =
		"listen = { \"unix:/run/a?mode=0600\", \"tcp:127.0.0.1:1\" }\n"
		"memory = 64MiB\nconns_max = 7\nconn_inflight_max = 8\n"
		"client_write_timeout = off\ndrain_timeout = 1m30s\n"
		"log {\n level = debug format = \"json\" worker_line_max = 1KiB }\n"
		"// a comment\n"
		"pool \"web-1\" { # another\n"
		"  command = { \"php\", \"w.php\", \"a b\" }\n"
		"  cwd = \"/srv\"\n  env = { \"A=1\", \"B=\" }\n"
		"  env_pass = { \"PATH\" }\n  clear_env = true\n"
		"  protocol = \"folk\"\n  min_workers = 2\n  max_workers = 5\n"
		"  boot_timeout = 2s queue_timeout = 3s exec_timeout = off\n"
		"  stop_timeout = 0 cancel_grace = 5ms\n"
		"  queue_max = 9 queue_max_bytes = 1MiB\n"
		"  max_request = 1MiB max_response = 2MiB\n"
		"  backoff_min = 1ms backoff_max = 1m on_client_gone = kill\n}\n"
		"pool \"two\" { command = \"/bin/true\"  workers = 3 }";
	char err[URD_CONFIG_ERR_MAX];
	const struct urd_pool_conf *p;
	struct urd_config *c;

	cr_assert_eq(load(text, NULL, 0, NULL, &c, err), 0, "%s", err);
	cr_assert_eq(c->values.conf.listen_nr, 2);
	cr_expect_str_eq(c->values.conf.listen[0].address, "unix:/run/a");
	cr_expect_eq(c->values.conf.listen[0].mode, 0600);
	cr_expect_str_eq(c->values.conf.listen[1].address, "tcp:127.0.0.1:1");
	cr_expect_eq(c->values.conf.memory, 64u << 20);
	cr_expect_eq(c->values.conf.conns_max, 7);
	cr_expect_eq(c->values.conf.conn_inflight_max, 8);
	cr_expect_eq(c->values.conf.client_write_timeout_ns, URD_OFF);
	cr_expect_eq(c->values.drain_timeout_ns, 90 * URD_SEC);
	cr_expect_eq(c->values.conf.log_level, URD_LOG_DEBUG);
	cr_expect_eq(c->values.conf.log_format, URD_LOG_JSON);
	cr_expect_eq(c->values.conf.log_line_max, 1024);
	cr_assert_eq(c->values.conf.pools_nr, 2);
	p = &c->values.conf.pools[0];
	cr_expect_str_eq(p->name, "web-1");
	cr_expect_str_eq(p->argv[0], "php");
	cr_expect_str_eq(p->argv[2], "a b");
	cr_expect_null(p->argv[3]);
	cr_expect_str_eq(p->cwd, "/srv");
	cr_expect_str_eq(p->env[1], "B=");
	cr_expect_null(p->env[2]);
	cr_expect_str_eq(p->env_pass[0], "PATH");
	cr_expect(p->clear_env);
	cr_expect_eq(p->protocol, URD_PROTOCOL_FOLK);
	cr_expect_eq(p->min_workers, 2);
	cr_expect_eq(p->max_workers, 5);
	cr_expect_eq(p->boot_timeout_ns, 2 * URD_SEC);
	cr_expect_eq(p->queue_timeout_ns, 3 * URD_SEC);
	cr_expect_eq(p->exec_timeout_ns, URD_OFF);
	cr_expect_eq(p->stop_timeout_ns, 0);
	cr_expect_eq(p->cancel_grace_ns, 5 * URD_MSEC);
	cr_expect_eq(p->queue_max, 9);
	cr_expect_eq(p->queue_max_bytes, 1u << 20);
	cr_expect_eq(p->request_max, 1u << 20);
	cr_expect_eq(p->response_max, 2u << 20);
	cr_expect_eq(p->backoff_min_ns, URD_MSEC);
	cr_expect_eq(p->backoff_max_ns, 60 * URD_SEC);
	cr_expect_eq(p->gone, URD_GONE_KILL);
	p = &c->values.conf.pools[1];
	cr_expect_str_eq(p->argv[0], "/bin/true");
	cr_expect_eq(p->min_workers, 3);
	cr_expect_eq(p->max_workers, 3);
	cr_expect_null(p->env);
	urd_config_free(c);
}

Test(config, workers_default_to_cpus)
{
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;
	cpu_set_t set;
	u32 cpus;

	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	cpus = (u32)CPU_COUNT(&set);
	cr_assert_eq(load("pool a { command = x }\npool b { command = x max_workers = 1 }\n"
			  "pool c { command = x min_workers = 4096 }",
			  NULL, 0, NULL, &c, err),
		     0, "%s", err);
	cr_expect_eq(c->values.conf.pools[0].min_workers, cpus);
	cr_expect_eq(c->values.conf.pools[0].max_workers, cpus);
	cr_expect_eq(c->values.conf.pools[1].min_workers, 1);
	cr_expect_eq(c->values.conf.pools[1].max_workers, 1);
	cr_expect_eq(c->values.conf.pools[2].min_workers, 4096);
	cr_expect_eq(c->values.conf.pools[2].max_workers, 4096);
	urd_config_free(c);
}

Test(config, include_and_environment)
{
	struct temp inner = temp_new("pool inner { command = { \"${URD_TEST_PROGRAM}\" } }\n");
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;
	char text[256];

	setenv("URD_TEST_PROGRAM", "/bin/cat", 1);
	snprintf(text, sizeof(text), "include(\"%s\")\nconns_max = 3\n", inner.path);
	cr_assert_eq(load(text, NULL, 0, NULL, &c, err), 0, "%s", err);
	cr_expect_str_eq(c->values.conf.pools[0].name, "inner");
	cr_expect_str_eq(c->values.conf.pools[0].argv[0], "/bin/cat");
	cr_expect_eq(c->values.conf.conns_max, 3);
	urd_config_free(c);
	unlink(inner.path);
}

Test(config, options_win_over_the_file)
{
	static const char *const sets[] = {
		"listen=unix:./u.sock,tcp:localhost:5",
		"listen=unix:/run/third",
		"log.level=warn",
		"pool.default.workers=4",
		"pool.web.exec_timeout=7s",
		"pool.new.command=php,a\\,b",
		"pool.web.env=A=1",
		"pool.web.env=B=2,C=3",
		"drain_timeout=off",
	};
	static const char *const command[] = { "cat", "-u", NULL };
	char err[URD_CONFIG_ERR_MAX];
	const struct urd_conf *conf;
	struct urd_config *c;

	cr_assert_eq(load("listen = unix:/run/file\nlog { level = error }\n"
			  "pool web { command = w exec_timeout = 1s env = { \"OLD=1\" } }",
			  sets, ARRAY_SIZE(sets), command, &c, err),
		     0, "%s", err);
	conf = &c->values.conf;
	cr_assert_eq(conf->listen_nr, 3);
	cr_expect_str_eq(conf->listen[0].address, "unix:./u.sock");
	cr_expect_str_eq(conf->listen[1].address, "tcp:localhost:5");
	cr_expect_str_eq(conf->listen[2].address, "unix:/run/third");
	cr_expect_eq(conf->log_level, URD_LOG_WARN);
	cr_expect_eq(c->values.drain_timeout_ns, URD_OFF);
	cr_assert_eq(conf->pools_nr, 3);
	cr_expect_str_eq(conf->pools[0].name, "web");
	cr_expect_eq(conf->pools[0].exec_timeout_ns, 7 * URD_SEC);
	cr_expect_str_eq(conf->pools[0].env[0], "A=1");
	cr_expect_str_eq(conf->pools[0].env[2], "C=3");
	cr_expect_null(conf->pools[0].env[3]);
	cr_expect_str_eq(conf->pools[1].name, "default");
	cr_expect_str_eq(conf->pools[1].argv[1], "-u");
	cr_expect_eq(conf->pools[1].max_workers, 4);
	cr_expect_str_eq(conf->pools[2].name, "new");
	cr_expect_str_eq(conf->pools[2].argv[1], "a,b");
	cr_expect_null(conf->pools[2].argv[2]);
	urd_config_free(c);
}

Test(config, isolation)
{
	static const char *const sets[] = { "pool.a.nice=-5", "pool.a.rlimit_core=0" };
	char err[URD_CONFIG_ERR_MAX];
	const struct urd_pool_conf *p;
	struct urd_config *c;

	cr_assert_eq(load("pool a { command = w user = root group = 0 umask = 027\n"
			  "oom_score_adj = 1000 no_new_privs = no rlimit_nofile = unlimited\n"
			  "rlimit_as = 2GiB rlimit_cpu = 1m rlimit_nproc = 50 }\n"
			  "pool b { command = w }",
			  sets, ARRAY_SIZE(sets), NULL, &c, err),
		     0, "%s", err);
	p = &c->values.conf.pools[0];
	cr_expect_str_eq(p->user, "root");
	cr_expect_str_eq(p->group, "0");
	cr_expect_eq(p->umask, 027);
	cr_expect_eq(p->nice, -5);
	cr_expect_eq(p->oom_score_adj, 1000);
	cr_expect_eq(p->no_new_privs, 0);
	cr_expect_eq(p->rlimit_nofile, URD_RLIMIT_NONE);
	cr_expect_eq(p->rlimit_core, 0);
	cr_expect_eq(p->rlimit_as, 2ull << 30);
	cr_expect_eq(p->rlimit_cpu_ns, 60 * URD_SEC);
	cr_expect_eq(p->rlimit_nproc, 50);
	p = &c->values.conf.pools[1];
	cr_expect_null(p->user);
	cr_expect_null(p->group);
	cr_expect_eq(p->umask, URD_UNSET);
	cr_expect_eq(p->nice, URD_UNSET);
	cr_expect_eq(p->oom_score_adj, URD_UNSET);
	cr_expect_eq(p->no_new_privs, URD_UNSET);
	cr_expect_eq(p->rlimit_nofile, URD_RLIMIT_UNSET);
	cr_expect_eq(p->rlimit_core, URD_RLIMIT_UNSET);
	cr_expect_eq(p->rlimit_as, URD_RLIMIT_UNSET);
	cr_expect_eq(p->rlimit_cpu_ns, URD_RLIMIT_UNSET);
	cr_expect_eq(p->rlimit_nproc, URD_RLIMIT_UNSET);
	urd_config_free(c);
}

Test(config, default_address)
{
	static const char *const command[] = { "cat", NULL };
	struct urd_config_args args = { .command = command, .listen = "unix:/run/d" };
	const char *set = "listen=unix:/run/e";
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;

	cr_assert_eq(urd_config_load(&args, &c, err, sizeof(err)), 0, "%s", err);
	cr_expect_eq(c->values.conf.listen_nr, 1);
	cr_expect_str_eq(c->values.conf.listen[0].address, "unix:/run/d");
	urd_config_free(c);
	args.sets = &set;
	args.sets_nr = 1;
	cr_assert_eq(urd_config_load(&args, &c, err, sizeof(err)), 0, "%s", err);
	cr_expect_eq(c->values.conf.listen_nr, 1);
	cr_expect_str_eq(c->values.conf.listen[0].address, "unix:/run/e");
	urd_config_free(c);
}

Test(config, admin_address)
{
	static const char *const command[] = { "cat", NULL };
	const char *sets[] = { "listen=unix:/run/a", "admin=unix:/run/b", "drain_timeout=5s" };
	const struct urd_conf *conf;
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;

	cr_assert_eq(load(NULL, sets, 3, command, &c, err), 0, "%s", err);
	conf = &c->values.conf;
	cr_assert_eq(conf->listen_nr, 2);
	cr_expect_not(conf->listen[0].admin);
	cr_expect(conf->listen[1].admin);
	cr_expect_str_eq(conf->listen[1].address, "unix:/run/b");
	cr_expect_eq(conf->listen[1].mode, 0);
	cr_expect_eq(conf->drain_timeout_ns, 5 * URD_SEC);
	urd_config_free(c);
	cr_assert_eq(load("admin = \"unix:/run/b?mode=0660\"\npool x { command = y }", NULL, 0,
			  NULL, &c, err),
		     0, "%s", err);
	cr_assert_eq(c->values.conf.listen_nr, 1);
	cr_expect_eq(c->values.conf.listen[0].mode, 0660);
	urd_config_free(c);
}

/* --- errors, word by word --------------------------------------------------------------------- */

/* clang-format off */
static const struct {
	const char *text;
	const char *err;
} bad_files[] = {
#include "bad_config.inc"
};

static const struct {
	const char *set;
	const char *err;
} bad_sets[] = {
#include "bad_option.inc"
};
/* clang-format on */

Test(config, bad_files)
{
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;

	for (size_t i = 0; i < ARRAY_SIZE(bad_files); i++) {
		err[0] = '\0';
		cr_expect_neq(load(bad_files[i].text, NULL, 0, NULL, &c, err), 0, "accepted: %s",
			      bad_files[i].text);
		cr_expect_null(c);
		cr_expect_str_eq(err, bad_files[i].err, "\n%s\nsays  %s\nnot   %s",
				 bad_files[i].text, err, bad_files[i].err);
	}
}

Test(config, bad_options)
{
	static const char file[] = "pool web { command = w min_workers = 2 max_workers = 3 }";
	char err[URD_CONFIG_ERR_MAX];
	struct urd_config *c;

	for (size_t i = 0; i < ARRAY_SIZE(bad_sets); i++) {
		err[0] = '\0';
		cr_expect_neq(load(file, &bad_sets[i].set, 1, NULL, &c, err), 0, "accepted: %s",
			      bad_sets[i].set);
		cr_expect_str_eq(err, bad_sets[i].err, "\n%s\nsays  %s\nnot   %s", bad_sets[i].set,
				 err, bad_sets[i].err);
	}
}
