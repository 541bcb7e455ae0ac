// SPDX-License-Identifier: MIT
/*
 * JSON and MessagePack: what each value becomes, and that nothing is lost on
 * the way there and back, for seeded random values.
 */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/json.h"
#include "gen.h"
#include "wire/mp.h"

/* MessagePack to text; NULL if it is refused. To be freed. */
static char *print(const u8 *p, size_t len, int *ret)
{
	char *text = NULL;
	size_t text_len;
	FILE *f = open_memstream(&text, &text_len);

	cr_assert_not_null(f);
	*ret = urd_json_print(p, len, f);
	fclose(f);
	return text;
}

static struct urd_json_buf pack(const char *text)
{
	struct urd_json_buf out = { .p = NULL };
	char err[URD_JSON_ERR_MAX] = "";
	int ret = urd_json_pack(text, strlen(text), &out, err, sizeof(err));

	cr_assert_eq(ret, 0, "%s: %s", text, err);
	return out;
}

static void expect_print(const char *hex, const char *text)
{
	struct bytes b = bytes_of(hex);
	int ret;
	char *got = print(b.p, b.len, &ret);

	cr_expect_eq(ret, 0, "%s", hex);
	cr_expect_str_eq(got, text, "%s gives %s, not %s", hex, got, text);
	free(got);
}

static void expect_pack(const char *text, const char *hex)
{
	struct bytes b = bytes_of(hex);
	struct urd_json_buf out = pack(text);

	cr_expect(out.len == b.len && !memcmp(out.p, b.p, b.len), "%s does not give %s", text, hex);
	free(out.p);
}

Test(json, values_both_ways)
{
	static const struct {
		const char *text;
		const char *hex;
	} pairs[] = {
		{ "null", "c0" },
		{ "true", "c3" },
		{ "false", "c2" },
		{ "0", "00" },
		{ "127", "7f" },
		{ "128", "cc 80" },
		{ "-1", "ff" },
		{ "-33", "d0 df" },
		{ "-32769", "d2 ff ff 7f ff" },
		{ "9223372036854775807", "cf 7f ff ff ff ff ff ff ff" },
		{ "9223372036854775808", "cf 80 00 00 00 00 00 00 00" },
		{ "18446744073709551615", "cf ff ff ff ff ff ff ff ff" },
		{ "-9223372036854775808", "d3 80 00 00 00 00 00 00 00" },
		{ "1.0", "cb 3f f0 00 00 00 00 00 00" },
		{ "2.5", "cb 40 04 00 00 00 00 00 00" },
		{ "0.1", "cb 3f b9 99 99 99 99 99 9a" },
		{ "-0.0", "cb 80 00 00 00 00 00 00 00" },
		{ "1e+300", "cb 7e 37 e4 3c 88 00 75 9c" },
		{ "\"\"", "a0" },
		{ "\"a\\\"\\\\\\n\\u0001\"", "a5 61 22 5c 0a 01" },
		{ "\"\xc3\xa9\"", "a2 c3 a9" },
		{ "\"a\\u0000b\"", "a3 61 00 62" },
		{ "[]", "90" },
		{ "{}", "80" },
		{ "[1,[2.5,null]]", "92 01 92 cb 40 04 00 00 00 00 00 00 c0" },
		{ "{\"z\":1,\"a\":2}", "82 a1 7a 01 a1 61 02" },
		{ "{\"$bin\":\"aGk=\"}", "c4 02 68 69" },
		{ "{\"$bin\":\"\"}", "c4 00" },
		{ "{\"$ext\":[5,\"aGk=\"]}", "d5 05 68 69" },
		{ "{\"$ext\":[-1,\"aGkh\"]}", "c7 03 ff 68 69 21" },
		{ "{\"$float\":\"inf\"}", "cb 7f f0 00 00 00 00 00 00" },
		{ "{\"$float\":\"-inf\"}", "cb ff f0 00 00 00 00 00 00" },
		{ "[18446744073709551615,\"18446744073709551615\",\"\\\"18446744073709551615\"]",
		  "93 cf ff ff ff ff ff ff ff ff b4 31 38 34 34 36 37 34 34 30 37 33 37 30 39 35 "
		  "35 31 36 31 35 b5 22 31 38 34 34 36 37 34 34 30 37 33 37 30 39 35 35 31 36 31 "
		  "35" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		expect_pack(pairs[i].text, pairs[i].hex);
		expect_print(pairs[i].hex, pairs[i].text);
	}
}

/* What only MessagePack can say. */
Test(json, prints)
{
	expect_print("ca 3f 80 00 00", "1.0");
	expect_print("ca 3d cc cc cd", "0.10000000149011612");
	expect_print("cb 7f f8 00 00 00 00 00 01", "{\"$float\":\"nan\"}");
	expect_print("a2 ff fe", "{\"$bin\":\"//4=\"}");
	expect_print("a3 ed a0 80", "{\"$bin\":\"7aCA\"}"); /* a surrogate */
	expect_print("a2 c0 80", "{\"$bin\":\"wIA=\"}");    /* too long a form of NUL */
	expect_print("d6 ff 00 00 00 01", "{\"$ext\":[-1,\"AAAAAQ==\"]}");
	expect_print("84 01 02 c0 03 cb 3f f8 00 00 00 00 00 00 04 91 a1 61 05",
		     "{\"1\":2,\"null\":3,\"1.5\":4,\"[\\\"a\\\"]\":5}");
	expect_print("82 a1 61 01 a1 61 02", "{\"a\":1,\"a\":2}"); /* repeated, as it came */
	expect_print("a1 7f", "\"\\u007f\"");
	expect_print("de 00 01 a1 61 dc 00 01 d9 01 62", "{\"a\":[\"b\"]}");
}

Test(json, print_refuses)
{
	static const char *const bad[] = { "", "c1", "92 01", "01 02", "a5 61", "d9", "81 01" };
	struct bytes b;
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		b = bytes_of(bad[i]);
		free(print(b.p, b.len, &ret));
		cr_expect_eq(ret, -EBADMSG, "%s", bad[i]);
	}
	/* 64 levels are fine, 65 are not */
	for (u32 depth = 63; depth <= 64; depth++) {
		memset(b.p, 0x91, depth + 1);
		b.p[depth] = 0x90;
		free(print(b.p, depth + 1, &ret));
		cr_expect_eq(ret, depth == 63 ? 0 : -E2BIG, "depth %u", depth + 1);
	}
	/* keys within keys would double their quotes each time */
	memset(b.p, 0x81, 40);
	b.p[40] = 0xa1;
	memset(b.p + 41, 'a', 42);
	free(print(b.p, 40 + 2 + 40, &ret));
	cr_expect_eq(ret, -E2BIG);
}

Test(json, pack_refuses)
{
	static const struct {
		const char *text;
		const char *says;
	} bad[] = {
		{ "", "not JSON" },
		{ "{", "not JSON" },
		{ "[1,]", "not JSON" },
		{ "nul", "not JSON" },
		{ "1 2", "not JSON" },
		{ "18446744073709551616", "not JSON" },
		{ "-9223372036854775809", "not JSON" },
		{ "[18446744073709551615,99999999999999999999]", "not JSON" },
		{ "\"\xff\"", "not JSON" },
		{ "{\"$bin\":\"a\"}", "base64" },
		{ "{\"$bin\":\"aGk\"}", "base64" },
		{ "{\"$bin\":\"aGl=\"}", "base64" }, /* bits of no byte */
		{ "{\"$bin\":\"a=k=\"}", "base64" },
		{ "{\"$ext\":[128,\"aGk=\"]}", "$ext" },
		{ "{\"$ext\":[1]}", "$ext" },
		{ "{\"$float\":\"NaN\"}", "$float" },
	};
	char deep[140];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct urd_json_buf out = { .p = NULL };
		char err[URD_JSON_ERR_MAX] = "";
		int ret = urd_json_pack(bad[i].text, strlen(bad[i].text), &out, err, sizeof(err));

		cr_expect_eq(ret, -EINVAL, "%s", bad[i].text);
		cr_expect(strstr(err, bad[i].says) != NULL, "%s: %s", bad[i].text, err);
		cr_expect_null(strchr(err, '\n'));
		free(out.p);
	}
	for (u32 depth = URD_JSON_DEPTH_MAX; depth <= URD_JSON_DEPTH_MAX + 1; depth++) {
		struct urd_json_buf out = { .p = NULL };
		char err[URD_JSON_ERR_MAX] = "";
		int ret;

		memset(deep, '[', depth);
		memset(deep + depth, ']', depth);
		ret = urd_json_pack(deep, 2 * depth, &out, err, sizeof(err));
		cr_expect_eq(ret, depth > URD_JSON_DEPTH_MAX ? -E2BIG : 0, "depth %u: %s", depth,
			     err);
		free(out.p);
	}
}

/* An object that only looks like one of ours is an object. */
Test(json, lookalikes)
{
	static const char *const texts[] = {
		"{\"$bin\":5}",	      "{\"$bin\":\"aGk=\",\"x\":1}",
		"{\"$ext\":\"x\"}",   "{\"$float\":1.5}",
		"{\"bin\":\"aGk=\"}", "{\"$u64\":\"18446744073709551615\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct urd_json_buf out = pack(texts[i]);
		int ret;
		char *again = print(out.p, out.len, &ret);

		cr_expect_eq(ret, 0);
		cr_expect_str_eq(again, texts[i]);
		free(again);
		free(out.p);
	}
}

Test(json, base64)
{
	u64 seed = 41;

	for (u32 len = 0; len < 70; len++) {
		u8 bytes[70];
		u8 back[80];
		char *text = NULL;
		size_t text_len;
		FILE *f = open_memstream(&text, &text_len);

		for (u32 i = 0; i < len; i++)
			bytes[i] = (u8)gen_next(&seed);
		urd_base64_encode(bytes, len, f);
		fclose(f);
		cr_expect_eq(text_len, (len + 2) / 3 * 4);
		cr_expect_eq(urd_base64_decode(text, text_len, back), len);
		cr_expect(!memcmp(back, bytes, len));
		free(text);
	}
}

/* A random JSON value as jansson's tree. */
static json_t *gen_json(u64 *seed, u32 depth)
{
	u32 n = gen_below(seed, 5);
	char key[32];
	json_t *v;
	double d;
	u64 bits;

	switch (gen_below(seed, depth ? 9 : 7)) {
	case 0:
		return json_null();
	case 1:
		return json_boolean(gen_below(seed, 2));
	case 2:
		return json_integer((json_int_t)(gen_next(seed) >> gen_below(seed, 64)));
	case 3:
		return json_integer((json_int_t) - (gen_next(seed) >> (1 + gen_below(seed, 63))));
	case 4:
		do {
			bits = gen_next(seed);
			memcpy(&d, &bits, sizeof(d));
		} while (!__builtin_isfinite(d));
		return json_real(d);
	case 5:
		return json_real(gen_below(seed, 1000) / 8.0);
	case 6:
		for (u32 i = 0; i < n * 5; i++)
			key[i] = (char)gen_below(seed, 0x80);
		return json_stringn(key, n * 5);
	case 7:
		v = json_array();
		while (n--)
			json_array_append_new(v, gen_json(seed, depth - 1));
		return v;
	default:
		v = json_object();
		while (n--) {
			snprintf(key, sizeof(key), "k%u\xc3\xa9\"", gen_below(seed, 1000));
			json_object_set_new(v, key, gen_json(seed, depth - 1));
		}
		return v;
	}
}

/* JSON to MessagePack and back is the same value, in the same order. */
Test(json, round_trip)
{
	u64 seed = 20260101;

	for (u32 i = 0; i < 3000; i++) {
		json_t *v = gen_json(&seed, 5);
		char *text =
			json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17));
		struct urd_json_buf out = pack(text);
		json_error_t error;
		json_t *back;
		char *again;
		char *dumped;
		int ret;

		again = print(out.p, out.len, &ret);
		cr_assert_eq(ret, 0, "%s", text);
		back = json_loads(again, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
		cr_assert_not_null(back, "%s gives %s: %s", text, again, error.text);
		dumped = json_dumps(back, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17));
		cr_assert_str_eq(dumped, text);
		json_decref(v);
		json_decref(back);
		free(dumped);
		free(text);
		free(again);
		free(out.p);
	}
}

/* Whatever a worker answers, the text is JSON, and read back gives the same text. */
Test(json, any_messagepack_prints)
{
	u64 seed = 77;
	u32 again_nr = 0;

	for (u32 i = 0; i < 3000; i++) {
		struct bytes b = { .len = 0 };
		struct urd_json_buf out = { .p = NULL };
		char err[URD_JSON_ERR_MAX];
		json_error_t error;
		json_t *v;
		char *text;
		char *second;
		int ret;

		gen_value(&seed, &b, 4);
		text = print(b.p, b.len, &ret);
		if (ret == -E2BIG) {
			free(text);
			continue;
		}
		cr_assert_eq(ret, 0);
		v = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
		cr_assert(v || json_error_code(&error) == json_error_numeric_overflow ||
				  json_error_code(&error) == json_error_null_byte_in_key,
			  "%s: %s", text, error.text);
		/* repeated keys, and keys that look like ours, do not come back */
		if (v && !urd_json_pack(text, strlen(text), &out, err, sizeof(err))) {
			second = print(out.p, out.len, &ret);
			cr_expect_eq(ret, 0);
			again_nr += !strcmp(text, second);
			free(second);
		}
		json_decref(v);
		free(out.p);
		free(text);
	}
	cr_expect_gt(again_nr, 1500);
}

/* Damaged MessagePack is refused or printed, never more. */
Test(json, damaged_messagepack)
{
	u64 seed = 99;

	for (u32 i = 0; i < 5000; i++) {
		struct bytes b = { .len = 0 };
		int ret;

		gen_value(&seed, &b, 4);
		gen_damage(&seed, &b);
		free(print(b.p, b.len, &ret));
		cr_assert(ret == 0 || ret == -EBADMSG || ret == -E2BIG);
	}
}
