// SPDX-License-Identifier: MIT
/*
 * urd scale, reload, recycle, kill, drain: workers come, go or are replaced by
 * order.  Each is one question to the admin socket; what it begins goes on after
 * the command has ended, "urd status" tells how.
 */
#include <msgpack.h>
#include <stdio.h>

#include "cli/admin.h"
#include "cli/cli.h"
#include "cli/config_value.h"
#include "wire/mp.h"
#include "wire/rpc.h"

#define OPTIONS                                                               \
	"\n"                                                                  \
	"  -s, --socket ADDRESS  urd's admin socket; else $URD_ADMIN, else\n" \
	"                        unix:/run/urd/admin.sock\n"                  \
	"      --json            print the answer as JSON\n"
#define OPTION_HELP "  -h, --help            print this\n"
#define EXITS                                                                      \
	"\n"                                                                       \
	"Exit status: 0 done; 2 wrong usage; 3 refused; 4 failed, perhaps done;\n" \
	"5 cannot connect.\n"

/* Params in the making: a name and a number at most. */
struct params {
	u8 bytes[512];
	struct urd_out out;
	msgpack_packer pk;
};

static void params_begin(struct params *p, u32 n)
{
	p->out = (struct urd_out){ .p = p->bytes, .cap = sizeof(p->bytes) };
	msgpack_packer_init(&p->pk, &p->out, urd_out_write);
	if (n)
		msgpack_pack_array(&p->pk, n);
	else
		msgpack_pack_nil(&p->pk);
}

static struct urd_span params_end(const struct params *p)
{
	urd_assert(!p->out.full);
	return (struct urd_span){ p->out.p, p->out.len };
}

/* A pool's name; what cannot be one is not asked for. False after an error. */
static bool params_pool(const struct urd_admin_args *a, struct params *p, const char *name)
{
	struct urd_complaint why;

	if (urd_value_pool_name(name, &why)) {
		(void)urd_cli_usage(a->cmd, "%s", why.text);
		return false;
	}
	msgpack_pack_str_with_body(&p->pk, name, strlen(name));
	return true;
}

static bool params_number(const struct urd_admin_args *a, struct params *p, const char *text)
{
	struct urd_complaint why;
	u64 n;

	if (urd_value_count(text, &n, &why)) {
		(void)urd_cli_usage(a->cmd, "%s", why.text);
		return false;
	}
	msgpack_pack_uint64(&p->pk, n);
	return true;
}

static int number_read(struct urd_span result, u64 *n)
{
	struct urd_mp m = { result.p, result.p + result.len };

	return urd_mp_uint(&m, n);
}

static const char *plural(u64 n)
{
	return n == 1 ? "" : "s";
}

/* ---- scale ---- */

static int scale_show(const struct urd_admin_args *a, struct urd_span result)
{
	struct urd_complaint why;
	u64 asked, n;

	if (number_read(result, &n) || urd_value_count(a->args[1], &asked, &why))
		return -EBADMSG;
	printf("pool %s: %llu worker%s%s\n", a->args[0], (unsigned long long)n, plural(n),
	       n < asked ? ", which is max_workers" : "");
	return 0;
}

static const char scale_usage[] =
	"usage: urd scale [OPTION]... POOL NUMBER\n"
	"\n"
	"Sets the number of workers of a pool, at most its max_workers. More are\n"
	"started at once; those that are too many finish what they have and leave.\n" OPTIONS
		OPTION_HELP EXITS;

int urd_cmd_scale(int argc, char **argv)
{
	struct urd_admin_args a = {
		.usage = scale_usage,
		.takes = "POOL and NUMBER",
		.args_min = 2,
		.args_max = 2,
	};
	int code = urd_admin_args(argc, argv, &a);
	struct params p;

	if (code >= 0)
		return code;
	params_begin(&p, 2);
	if (!params_pool(&a, &p, a.args[0]) || !params_number(&a, &p, a.args[1]))
		return URD_EXIT_USAGE;
	return urd_admin_ask(&a, "urd.scale", params_end(&p), scale_show);
}

/* ---- reload and recycle ---- */

static int replaced_show(const struct urd_admin_args *a, struct urd_span result)
{
	u64 n;

	(void)a;
	if (number_read(result, &n))
		return -EBADMSG;
	printf("%llu worker%s will be replaced\n", (unsigned long long)n, plural(n));
	return 0;
}

static const char reload_usage[] =
	"usage: urd reload [OPTION]... [POOL]\n"
	"\n"
	"Replaces the workers of one pool or of all, one after the other. An old one\n"
	"leaves when a new one is ready: if new ones do not start, old ones stay.\n" OPTIONS
		OPTION_HELP EXITS;

int urd_cmd_reload(int argc, char **argv)
{
	struct urd_admin_args a = {
		.usage = reload_usage,
		.takes = "one POOL at most",
		.args_max = 1,
	};
	int code = urd_admin_args(argc, argv, &a);
	struct params p;

	if (code >= 0)
		return code;
	params_begin(&p, a.args[0] != NULL);
	if (a.args[0] && !params_pool(&a, &p, a.args[0]))
		return URD_EXIT_USAGE;
	return urd_admin_ask(&a, "urd.reload", params_end(&p), replaced_show);
}

static const char recycle_usage[] =
	"usage: urd recycle [OPTION]... POOL [PID]\n"
	"\n"
	"Replaces one worker of a pool, or all of them one after the other. Each\n"
	"finishes what it has first.\n" OPTIONS OPTION_HELP EXITS;

int urd_cmd_recycle(int argc, char **argv)
{
	struct urd_admin_args a = {
		.usage = recycle_usage,
		.takes = "POOL and perhaps PID",
		.args_min = 1,
		.args_max = 2,
	};
	int code = urd_admin_args(argc, argv, &a);
	struct params p;

	if (code >= 0)
		return code;
	params_begin(&p, a.args[1] ? 2 : 1);
	if (!params_pool(&a, &p, a.args[0]) || (a.args[1] && !params_number(&a, &p, a.args[1])))
		return URD_EXIT_USAGE;
	return urd_admin_ask(&a, "urd.recycle", params_end(&p), replaced_show);
}

/* ---- kill and drain ---- */

static int kill_show(const struct urd_admin_args *a, struct urd_span result)
{
	(void)result;
	printf("worker %s killed\n", a->args[0]);
	return 0;
}

static const char kill_usage[] =
	"usage: urd kill [OPTION]... PID\n"
	"\n"
	"Kills a worker at once, with its children. Its callers get WORKER_DIED, and\n"
	"another worker takes its place.\n" OPTIONS OPTION_HELP EXITS;

int urd_cmd_kill(int argc, char **argv)
{
	struct urd_admin_args a = {
		.usage = kill_usage,
		.takes = "one PID",
		.args_min = 1,
		.args_max = 1,
	};
	int code = urd_admin_args(argc, argv, &a);
	struct params p;

	if (code >= 0)
		return code;
	params_begin(&p, 1);
	if (!params_number(&a, &p, a.args[0]))
		return URD_EXIT_USAGE;
	return urd_admin_ask(&a, "urd.kill", params_end(&p), kill_show);
}

static int drain_show(const struct urd_admin_args *a, struct urd_span result)
{
	(void)a;
	(void)result;
	printf("urd drains and ends\n");
	return 0;
}

static const char drain_usage[] =
	"usage: urd drain [OPTION]...\n"
	"\n"
	"Takes no new requests, finishes those that are there, and ends urd. Once more\n"
	"with a shorter time makes it quicker.\n" OPTIONS
	"  -t, --timeout TIME    cut what still runs then; else drain_timeout\n" OPTION_HELP EXITS;

int urd_cmd_drain(int argc, char **argv)
{
	struct urd_admin_args a = {
		.usage = drain_usage,
		.timeout = true,
	};
	int code = urd_admin_args(argc, argv, &a);
	struct params p;

	if (code >= 0)
		return code;
	params_begin(&p, a.timeout_ms >= 0);
	if (a.timeout_ms >= 0)
		msgpack_pack_uint64(&p.pk, (u64)a.timeout_ms);
	return urd_admin_ask(&a, "urd.drain", params_end(&p), drain_show);
}
