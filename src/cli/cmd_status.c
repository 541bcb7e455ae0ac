// SPDX-License-Identifier: MIT
/*
 * urd status and urd workers: tables that fit into 80 columns.  What does not fit
 * is cut with a "~" behind it; --json has all of it.
 */
#include <stdio.h>

#include "cli/admin.h"
#include "cli/cli.h"
#include "cli/config_value.h"
#include "wire/mp.h"

/* Columns for the name of a pool. */
#define NAME_WIDTH 14

#define OPTIONS                                                               \
	"\n"                                                                  \
	"  -s, --socket ADDRESS  urd's admin socket; else $URD_ADMIN, else\n" \
	"                        unix:/run/urd/admin.sock\n"                  \
	"      --json            print the answer as JSON\n"                  \
	"  -h, --help            print this\n"                                \
	"\n"                                                                  \
	"Exit status: 0 done; 2 wrong usage; 3 refused; 4 failed; 5 cannot connect.\n"

/* --- values --------------------------------------------------------------------- */

/* Text of a number, a size or a time in a table. */
struct cell {
	char text[24];
};

static bool find_uint(const struct urd_mp *map, const char *key, u64 *v)
{
	struct urd_mp m;

	return !urd_mp_find(map, key, &m) && !urd_mp_uint(&m, v);
}

/* A number that an older urd may not know counts as 0. */
static u64 get_uint(const struct urd_mp *map, const char *key)
{
	u64 v;

	return find_uint(map, key, &v) ? v : 0;
}

static bool get_bool(const struct urd_mp *map, const char *key)
{
	struct urd_mp m;
	bool v;

	return !urd_mp_find(map, key, &m) && !urd_mp_bool(&m, &v) && v;
}

/* A string of the map in at most @width columns; "-" if there is none. */
static struct cell get_text(const struct urd_mp *map, const char *key, size_t width)
{
	struct cell c = { "-" };
	struct urd_span s;
	struct urd_mp m;

	urd_assert(width < sizeof(c.text));
	if (urd_mp_find(map, key, &m) || urd_mp_str(&m, &s))
		return c;
	if (s.len <= width)
		snprintf(c.text, sizeof(c.text), "%.*s", (int)s.len, (const char *)s.p);
	else
		snprintf(c.text, sizeof(c.text), "%.*s~", (int)width - 1, (const char *)s.p);
	return c;
}

/* Three digits and a letter for what is large. */
static struct cell scaled(u64 v, u64 base, const char *units)
{
	double x = (double)v;
	struct cell c;
	size_t i = 0;

	while (x >= (double)base && units[i + 1]) {
		x /= (double)base;
		i++;
	}
	snprintf(c.text, sizeof(c.text), i && x < 10 ? "%.1f%c" : "%.0f%c", x, units[i]);
	return c;
}

static struct cell show_count(u64 v)
{
	struct cell c;

	if (v >= 1000000)
		return scaled(v, 1000, " kMGTPE");
	snprintf(c.text, sizeof(c.text), "%llu", (unsigned long long)v);
	return c;
}

static struct cell show_pid(u64 pid)
{
	struct cell c;

	snprintf(c.text, sizeof(c.text), "%llu", (unsigned long long)pid);
	return c;
}

static struct cell show_size(u64 bytes)
{
	return scaled(bytes, 1024, "BKMGTPE");
}

/* The two biggest units are enough: 3d4h, 5m12s, 40s, 120ms */
static struct cell show_time(u64 ms)
{
	static const struct {
		u64 ms;
		const char *name;
	} units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" } };
	struct cell c;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (ms < units[i].ms)
			continue;
		if (i + 1 == ARRAY_SIZE(units))
			snprintf(c.text, sizeof(c.text), "%llus", (unsigned long long)ms / 1000);
		else
			snprintf(c.text, sizeof(c.text), "%llu%s%llu%s",
				 (unsigned long long)(ms / units[i].ms), units[i].name,
				 (unsigned long long)(ms % units[i].ms / units[i + 1].ms),
				 units[i + 1].name);
		return c;
	}
	snprintf(c.text, sizeof(c.text), "%llums", (unsigned long long)ms);
	return c;
}

/* A list of maps, one after the other. */
struct rows {
	struct urd_mp m;
	u32 left;
};

static bool rows_next(struct rows *r, struct urd_mp *row)
{
	struct urd_span s;

	if (!r->left || urd_mp_value(&r->m, &s))
		return false;
	r->left--;
	*row = (struct urd_mp){ s.p, s.p + s.len };
	return true;
}

/* --- status ----------------------------------------------------------------------- */

static const char *pool_health(const struct urd_mp *pool)
{
	u64 ready = get_uint(pool, "ready");

	if (get_bool(pool, "failed"))
		return "failed";
	if (!ready)
		return "none";
	return ready < get_uint(pool, "want") ? "short" : "ok";
}

static void pools_show(struct rows rows)
{
	struct urd_mp p;

	printf("%-*s %-6s %9s %7s %8s %8s %7s %7s\n", NAME_WIDTH, "POOL", "HEALTH", "READY/OF",
	       "MIN-MAX", "QUEUED", "INFLIGHT", "SPAWNS", "EXITS");
	while (rows_next(&rows, &p)) {
		char ready[24], range[24];

		snprintf(ready, sizeof(ready), "%u/%u", (u32)get_uint(&p, "ready"),
			 (u32)get_uint(&p, "want"));
		snprintf(range, sizeof(range), "%u-%u", (u32)get_uint(&p, "min_workers"),
			 (u32)get_uint(&p, "max_workers"));
		printf("%-*s %-6s %9s %7s %8s %8s %7s %7s\n", NAME_WIDTH,
		       get_text(&p, "name", NAME_WIDTH).text, pool_health(&p), ready, range,
		       show_count(get_uint(&p, "queued")).text,
		       show_count(get_uint(&p, "inflight")).text,
		       show_count(get_uint(&p, "spawns")).text,
		       show_count(get_uint(&p, "exits")).text);
	}
}

/* Requests by what became of them; the rarer outcomes in one column. */
static void outcomes_show(struct rows rows)
{
	struct urd_mp p, o;

	printf("\n%-*s %9s %7s %7s %7s %7s %7s %7s\n", NAME_WIDTH, "REQUESTS", "OK", "APP", "BUSY",
	       "TIMEOUT", "DIED", "OTHER", "LATE");
	while (rows_next(&rows, &p)) {
		u64 late, other = 0;

		if (urd_mp_find(&p, "outcomes", &o))
			continue;
		late = get_uint(&o, "QUEUE_TIMEOUT") + get_uint(&o, "EXEC_TIMEOUT");
		for (int code = URD_PROTOCOL; code < URD_CODE_NR; code++)
			other += get_uint(&o, urd_code_name(code));
		printf("%-*s %9s %7s %7s %7s %7s %7s %7s\n", NAME_WIDTH,
		       get_text(&p, "name", NAME_WIDTH).text, show_count(get_uint(&o, "OK")).text,
		       show_count(get_uint(&o, "APP")).text, show_count(get_uint(&o, "BUSY")).text,
		       show_count(late).text, show_count(get_uint(&o, "WORKER_DIED")).text,
		       show_count(other).text, show_count(get_uint(&p, "late")).text);
	}
}

static int status_show(const struct urd_admin_args *a, struct urd_span result)
{
	struct urd_mp map = { result.p, result.p + result.len };
	struct rows rows;
	struct urd_mp memory;
	u64 pid;

	(void)a;
	if (!find_uint(&map, "pid", &pid) || urd_mp_find(&map, "memory", &memory) ||
	    urd_mp_find(&map, "pools", &rows.m) || urd_mp_array(&rows.m, &rows.left))
		return -EBADMSG;
	printf("urd %s  pid %llu  up %s  connections %llu  memory %s of %s%s\n\n",
	       get_text(&map, "version", 16).text, (unsigned long long)pid,
	       show_time(get_uint(&map, "uptime_ms")).text,
	       (unsigned long long)get_uint(&map, "connections"),
	       show_size(get_uint(&memory, "used")).text, show_size(get_uint(&memory, "size")).text,
	       get_bool(&map, "draining") ? "  DRAINING" : "");
	pools_show(rows);
	outcomes_show(rows);
	return 0;
}

static const char status_usage[] =
	"usage: urd status [OPTION]...\n"
	"\n"
	"Tells how a running urd is: its pools and what became of their requests.\n"
	"HEALTH is ok; short: fewer workers ready than wanted; none: no worker ready;\n"
	"failed: workers do not start, callers are told so.\n" OPTIONS;

int urd_cmd_status(int argc, char **argv)
{
	static const u8 nil = 0xc0;
	struct urd_admin_args a = {
		.usage = status_usage,
	};
	int code = urd_admin_args(argc, argv, &a);

	if (code >= 0)
		return code;
	return urd_admin_ask(&a, "urd.status", (struct urd_span){ &nil, 1 }, status_show);
}

/* --- workers ---------------------------------------------------------------------- */

static int workers_show(const struct urd_admin_args *a, struct urd_span result)
{
	struct rows rows = { .m = { result.p, result.p + result.len } };
	struct urd_mp w;

	(void)a;
	if (urd_mp_array(&rows.m, &rows.left))
		return -EBADMSG;
	printf("%-*s %6s %7s %-8s %7s %7s %8s %5s  %s\n", NAME_WIDTH, "POOL", "WORKER", "PID",
	       "STATE", "AGE", "SERVED", "INFLIGHT", "RSS", "LEAVING");
	while (rows_next(&rows, &w)) {
		bool lives = get_uint(&w, "pid") > 0;
		struct cell dash = { "-" };

		printf("%-*s %6llu %7s %-8s %7s %7s %8s %5s  %s\n", NAME_WIDTH,
		       get_text(&w, "pool", NAME_WIDTH).text,
		       (unsigned long long)get_uint(&w, "worker"),
		       (lives ? show_pid(get_uint(&w, "pid")) : dash).text,
		       get_text(&w, "state", 8).text,
		       (lives ? show_time(get_uint(&w, "age_ms")) : dash).text,
		       show_count(get_uint(&w, "served")).text,
		       show_count(get_uint(&w, "inflight")).text,
		       (lives ? show_size(get_uint(&w, "rss")) : dash).text,
		       get_text(&w, "leaving", 12).text);
	}
	return 0;
}

static const char workers_usage[] =
	"usage: urd workers [OPTION]... [POOL]\n"
	"\n"
	"Lists the workers of a running urd, or of one pool. LEAVING is why a worker is\n"
	"to be replaced, or has been told to go.\n" OPTIONS;

int urd_cmd_workers(int argc, char **argv)
{
	static const u8 nil = 0xc0;
	struct urd_admin_args a = {
		.usage = workers_usage,
		.takes = "one POOL at most",
		.args_max = 1,
	};
	int code = urd_admin_args(argc, argv, &a);
	struct urd_complaint why;
	u8 name[80] = { 0xd9 };
	size_t len;

	if (code >= 0)
		return code;
	if (!a.args[0])
		return urd_admin_ask(&a, "urd.workers", (struct urd_span){ &nil, 1 }, workers_show);
	if (urd_value_pool_name(a.args[0], &why))
		return urd_cli_usage(a.cmd, "%s", why.text);
	len = strlen(a.args[0]);
	name[1] = (u8)len; /* 64 at most: a short string */
	memcpy(name + 2, a.args[0], len);
	return urd_admin_ask(&a, "urd.workers", (struct urd_span){ name, (u32)len + 2 },
			     workers_show);
}
