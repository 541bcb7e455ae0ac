// SPDX-License-Identifier: MIT
/*
 * Known weaknesses of folk 0.1, first half: what becomes of answers, right and
 * wrong ones.  Each test is named after the weakness, states what must be true
 * instead, and does so for the folk and for the native protocol.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/daemon.h"
#include "wire/mp.h"
#include "wire/rpc.h"

TestSuite(folk_weaknesses, .timeout = 120);

static const char *const protocols[] = { "folk", "urd" };

/* One pool of @workers bad workers; @how they boot may be NULL, @opt one more option. */
static void start(struct daemon *d, const char *protocol, const char *workers, const char *how,
		  const char *opt)
{
	const char *command[] = { BAD, how, NULL };
	const char *opts[8];
	char proto[64], nr[64];
	u32 n = 0;

	snprintf(proto, sizeof(proto), "pool.default.protocol=%s", protocol);
	snprintf(nr, sizeof(nr), "pool.default.workers=%s", workers);
	opts[n++] = proto;
	opts[n++] = nr;
	opts[n++] = "pool.default.backoff_min=10ms";
	if (opt)
		opts[n++] = opt;
	opts[n] = NULL;
	*d = (struct daemon){ .pid = 0 };
	daemon_start(d, opts, command);
}

#define each_protocol(p)                                \
	for (const char *p, *const *p##_at = protocols; \
	     p##_at < protocols + ARRAY_SIZE(protocols) && (p = *p##_at); p##_at++)

/* After a fault: another process serves, and the next caller gets what is his. */
static void must_be_replaced(struct daemon *d, pid_t old)
{
	must_echo(d, "the next one");
	cr_assert_neq(worker_pid(d), old, "the worker was kept");
	await(!pid_lives(old));
}

/*
 * The second of two answers may be found out by the next request, which then is
 * lost with the worker: lost, and not answered with what is another's.
 */
static void spend_until_replaced(struct daemon *d, pid_t old)
{
	for (u64 end = now_ms() + PATIENCE_MS; !pid_is_reaped(old);) {
		struct urd_answer a = call(d, "echo", value_text("B"));

		if (a.code == URD_OK)
			cr_assert(answer_is(&a, value_text("B")));
		else
			cr_assert_eq(a.code, URD_PROTOCOL);
		cr_assert_lt(now_ms(), end);
	}
}

Test(folk_weaknesses, f01_late_answer_never_reaches_another_caller)
{
	static const char *const wrong[] = { "foreign", "stale", "twice" };

	each_protocol(p)
	{
		struct daemon d;
		struct urd_answer a;

		start(&d, p, "1", NULL, "pool.default.exec_timeout=200ms");
		a = call(&d, "slow", value_number(400));
		cr_assert_eq(a.code, URD_EXEC_TIMEOUT);
		/* longer than the late answer takes to come, if it comes */
		for (u64 end = now_ms() + 500; now_ms() < end;)
			must_echo(&d, "B");
		for (u32 i = 0; i < ARRAY_SIZE(wrong); i++) {
			pid_t old = worker_pid(&d);

			a = call(&d, wrong[i], value_text("A"));
			/* the first of two answers is right, and must not be the only one */
			if (strcmp(wrong[i], "twice"))
				cr_assert_eq(a.code, URD_PROTOCOL, "%s", wrong[i]);
			else
				spend_until_replaced(&d, old);
			must_be_replaced(&d, old);
		}
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f02_worker_is_replaced_after_a_timeout)
{
	each_protocol(p)
	{
		struct urd_answer a;
		struct daemon d;
		u64 begun, took;
		pid_t old;

		start(&d, p, "1", NULL, "pool.default.exec_timeout=200ms");
		old = worker_pid(&d);
		begun = now_ms();
		a = call(&d, "hang", value_number(0));
		took = now_ms() - begun;
		cr_assert_eq(a.code, URD_EXEC_TIMEOUT);
		cr_assert_eq(a.executed, URD_EXECUTED_MAYBE);
		cr_assert(took >= 200 && took < 200 + 1000 * SLOWNESS, "%llu ms",
			  (unsigned long long)took);
		must_be_replaced(&d, old);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f10_one_deadline_over_send_and_receive)
{
	each_protocol(p)
	{
		u32 size = 1u << 20;
		u8 *big = calloc(1, size);
		struct urd_answer a;
		struct daemon d;
		u64 begun;

		/* it never reads: the request can't even be sent */
		start(&d, p, "1", "deaf", "pool.default.exec_timeout=300ms");
		cr_assert_not_null(big);
		big[0] = 0xc6;
		put_be32(big + 1, size - 5);
		begun = now_ms();
		cr_assert_eq(urd_client_call(d.client, "echo", big, size, NULL, &a), 0);
		cr_assert_eq(a.code, URD_EXEC_TIMEOUT);
		cr_assert_lt(now_ms() - begun, 300 + 1000 * SLOWNESS);
		free(big);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f10_both_sides_write_16_mib_at_once)
{
	each_protocol(p)
	{
		u32 size = URD_REQUEST_MAX - 300;
		u8 *big = calloc(1, size);
		struct urd_answer a;
		struct daemon d;

		start(&d, p, "1", "eager", "pool.default.exec_timeout=20s");
		cr_assert_not_null(big);
		big[0] = 0xc6;
		put_be32(big + 1, size - 5);
		for (u32 i = 0; i < 2; i++) {
			cr_assert_eq(urd_client_call(d.client, "echo", big, size, NULL, &a), 0);
			cr_assert_eq(a.code, URD_OK, "%s", a.message);
			cr_assert_gt(a.result_len, size);
		}
		free(big);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f11_unexpected_kind_of_message)
{
	static const char *const kinds[] = { "question", "chunk" };

	each_protocol(p)
	{
		struct urd_answer a;
		struct daemon d;
		pid_t old;

		start(&d, p, "1", NULL, NULL);
		for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
			old = worker_pid(&d);
			a = call(&d, kinds[i], value_number(0));
			cr_assert_eq(a.code, URD_PROTOCOL, "%s", kinds[i]);
			must_be_replaced(&d, old);
		}
		/* a notification says nothing, and is tolerated */
		old = worker_pid(&d);
		a = call_ok(&d, "notify", value_text("after two notes"));
		cr_assert(answer_is(&a, value_text("after two notes")));
		cr_assert_eq(worker_pid(&d), old);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f12_bad_frame_is_a_protocol_error)
{
	static const char *const bad[] = { "garbage", "nomessage", "trailing",
					   "zero",    "oversize",  "deep" };

	each_protocol(p)
	{
		struct daemon d;

		start(&d, p, "1", NULL, NULL);
		for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
			pid_t old = worker_pid(&d);
			struct urd_answer a = call(&d, bad[i], value_number(0));

			cr_assert_eq(a.code, URD_PROTOCOL, "%s: %s", bad[i], urd_code_name(a.code));
			cr_assert_eq(a.executed, URD_EXECUTED_MAYBE);
			must_be_replaced(&d, old);
		}
		daemon_stop(&d);
	}
}

/* Calls echo with binary params of @size bytes in all. */
static struct urd_answer call_sized(struct daemon *d, const char *method, u32 size)
{
	u8 *big = calloc(1, size);
	struct urd_answer a;

	cr_assert_not_null(big);
	big[0] = 0xc6;
	put_be32(big + 1, size - 5);
	cr_assert_eq(urd_client_call(d->client, method, big, size, NULL, &a), 0);
	free(big);
	return a;
}

Test(folk_weaknesses, f13_too_large_a_request_costs_no_worker)
{
	each_protocol(p)
	{
		struct urd_answer a;
		struct daemon d;
		pid_t old;

		start(&d, p, "1", NULL, "pool.default.max_request=1KiB");
		old = worker_pid(&d);
		a = call_sized(&d, "echo", 1025);
		cr_assert_eq(a.code, URD_TOO_LARGE);
		cr_assert_eq(a.executed, URD_EXECUTED_NO);
		a = call_sized(&d, "echo", 1024);
		cr_assert_eq(a.code, URD_OK);
		cr_assert_eq(worker_pid(&d), old);
		daemon_stop(&d);
	}
}

/* The frame that the worker sees is longer than the client's: its number is. */
Test(folk_weaknesses, f13_no_frame_to_a_worker_exceeds_16_mib)
{
	/* array, tag, number of one byte, "size" with its header */
	const u32 client_envelope = 1 + 1 + 1 + 5;

	each_protocol(p)
	{
		struct daemon d;
		pid_t old;

		start(&d, p, "1", NULL, NULL);
		old = worker_pid(&d);
		for (u32 i = 0; i < 300; i++)
			must_echo(&d, "number"); /* until urd's numbers are longer than a byte */
		for (u32 less = 0; less <= 16; less++) {
			struct urd_client *mine = d.client;
			struct urd_answer a;

			d.client = client_new(&d);
			a = call_sized(&d, "size", URD_REQUEST_MAX - client_envelope - less);
			if (a.code == URD_OK)
				cr_assert_leq(answer_number(&a), URD_REQUEST_MAX);
			else
				cr_assert_eq(a.code, URD_TOO_LARGE, "%u less: %s", less,
					     urd_code_name(a.code));
			urd_client_close(d.client);
			d.client = mine;
		}
		cr_assert_eq(worker_pid(&d), old);
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f14_error_of_the_application_arrives_untouched)
{
	static const u8 whole[] = "\x83\xa4"
				  "code\xd1\x82\xce\xa7message\xa4"
				  "boom\xa4"
				  "data\x93\x01\xca\x40\x20\x00\x00\xc4\x02\xff\x00";

	each_protocol(p)
	{
		struct urd_answer a;
		struct urd_mp m, v;
		struct urd_span s;
		struct daemon d;
		pid_t old;

		start(&d, p, "1", NULL, NULL);
		old = worker_pid(&d);
		a = call(&d, "apperr", value_number(0));
		cr_assert_eq(a.code, URD_APP);
		cr_assert_eq(a.executed, URD_EXECUTED_YES);
		cr_assert_str_eq(a.message, "boom");
		m = (struct urd_mp){ a.result, (const u8 *)a.result + a.result_len };
		cr_assert_eq(urd_mp_find(&m, "detail", &v), 0);
		cr_assert_eq(urd_mp_value(&v, &s), 0);
		cr_assert_eq(s.len, sizeof(whole) - 1);
		cr_assert_arr_eq(s.p, whole, s.len);
		a = call(&d, "strerr", value_number(0));
		cr_assert_eq(a.code, URD_APP);
		cr_assert_str_eq(a.message, "oops");
		cr_assert_eq(worker_pid(&d), old, "an error cost the worker");
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f27_params_and_results_are_not_reencoded)
{
	/* each in an encoding that no packer would choose */
	static const char *const odd[] = {
		"\xcd\x00\x05",		"\xd3\x00\x00\x00\x00\x00\x00\x00\x01",
		"\xca\x3f\x80\x00\x00", "\xdb\x00\x00\x00\x01x",
		"\xdc\x00\x01\xc3",	"\xdf\x00\x00\x00\x01\xcc\x01\xc7\x02\x07hi",
	};
	static const u32 lens[] = { 3, 9, 5, 6, 4, 12 };

	each_protocol(p)
	{
		struct daemon d;

		start(&d, p, "1", NULL, NULL);
		for (u32 i = 0; i < ARRAY_SIZE(odd); i++) {
			struct value v = { .len = lens[i] };
			struct urd_answer a;

			memcpy(v.p, odd[i], v.len);
			a = call_ok(&d, "echo", v);
			cr_assert(answer_is(&a, v), "value %u was changed", i);
		}
		daemon_stop(&d);
	}
}

Test(folk_weaknesses, f31_method_of_the_request_reaches_the_worker)
{
	char longest[URD_METHOD_MAX + 1];

	memset(longest, 'm', URD_METHOD_MAX);
	longest[URD_METHOD_MAX] = 0;
	each_protocol(p)
	{
		const char *names[] = { "http.handle", "jobs.process", "dispatch", "x", longest };
		struct daemon d;

		start(&d, p, "1", NULL, NULL);
		for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
			struct urd_answer a = call(&d, names[i], value_number(0));

			/* it knows none of them, and says which it was asked for */
			cr_assert_eq(a.code, URD_APP);
			cr_assert_str_eq(a.message, names[i]);
		}
		must_echo(&d, "and this one it knows");
		cr_assert_eq(call(&d, "default/x", value_number(0)).code, URD_APP);
		daemon_stop(&d);
	}
}
