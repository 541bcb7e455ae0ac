// SPDX-License-Identifier: MIT
/*
 * MessagePack to JSON, straight from the bytes: no tree, so that integers, the
 * order of keys and even repeated keys come out as they went in.
 */
#include <math.h>
#include <stdlib.h>

#include "cli/json.h"
#include "wire/mp.h"

/*
 * Each key within a key escapes the quotes of the inner ones, and so doubles
 * them: without a limit a few bytes could become more text than memory holds.
 */
#define KEYS_DEPTH_MAX 4

struct printer {
	const u8 *p;
	const u8 *end;
	FILE *out;
	u32 keys; /* keys within keys that are being printed */
};

static int value_print(struct printer *pr, u32 depth);

static u64 be_read(struct printer *pr, u32 width)
{
	u64 v = 0;

	urd_assert((size_t)(pr->end - pr->p) >= width); /* scanned before */
	while (width--)
		v = v << 8 | *pr->p++;
	return v;
}

/* Length of the well-formed UTF-8 sequence at @p, 0 if there is none. */
static size_t utf8_len(const u8 *p, size_t left)
{
	u32 c = p[0];
	size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	if (n > left)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	/* too long a form, surrogates, beyond the last code point */
	if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) ||
	    (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

static bool is_utf8(const u8 *p, size_t len)
{
	while (len) {
		size_t n = utf8_len(p, len);

		if (!n)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static void text_print(const u8 *p, size_t len, FILE *out)
{
	static const char shorts[] = "\b\t\n\f\r\"\\";
	static const char letters[] = "btnfr\"\\";

	putc('"', out);
	for (; len--; p++) {
		const char *at = *p ? strchr(shorts, *p) : NULL;

		if (at)
			fprintf(out, "\\%c", letters[at - shorts]);
		else if (*p < 0x20 || *p == 0x7f)
			fprintf(out, "\\u%04x", *p);
		else
			putc(*p, out);
	}
	putc('"', out);
}

static void bytes_print(struct printer *pr, u64 len, bool text)
{
	if (text && is_utf8(pr->p, len)) {
		text_print(pr->p, len, pr->out);
	} else {
		fputs("{\"$bin\":\"", pr->out);
		urd_base64_encode(pr->p, len, pr->out);
		fputs("\"}", pr->out);
	}
	pr->p += len;
}

static void ext_print(struct printer *pr, u64 len)
{
	int type = (int8_t)be_read(pr, 1);

	fprintf(pr->out, "{\"$ext\":[%d,\"", type);
	urd_base64_encode(pr->p, len, pr->out);
	fputs("\"]}", pr->out);
	pr->p += len;
}

/* The shortest digits that read back as the same number. */
static void float_print(double v, FILE *out)
{
	char buf[40];

	if (!isfinite(v)) {
		fprintf(out, "{\"$float\":\"%s\"}", isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
		return;
	}
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(buf, sizeof(buf), "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			break;
	}
	/* a float that looks like an integer would come back as one */
	fprintf(out, "%s%s", buf, strpbrk(buf, ".e") ? "" : ".0");
}

static void float_bits_print(struct printer *pr, u32 width)
{
	u64 bits = be_read(pr, width);
	u32 half = (u32)bits;
	double d;
	float f;

	memcpy(&d, &bits, sizeof(d));
	memcpy(&f, &half, sizeof(f));
	float_print(width == 4 ? (double)f : d, pr->out);
}

static int array_print(struct printer *pr, u64 n, u32 depth)
{
	int ret = 0;

	putc('[', pr->out);
	for (u64 i = 0; !ret && i < n; i++) {
		if (i)
			putc(',', pr->out);
		ret = value_print(pr, depth);
	}
	putc(']', pr->out);
	return ret;
}

/* A key that is no string becomes the text of its JSON. */
static int key_print(struct printer *pr, u32 depth)
{
	FILE *out = pr->out;
	char *text = NULL;
	size_t len = 0;
	int ret;

	if (pr->keys == KEYS_DEPTH_MAX)
		return -E2BIG;
	pr->out = open_memstream(&text, &len);
	if (!pr->out) {
		pr->out = out;
		return -ENOMEM;
	}
	pr->keys++;
	ret = value_print(pr, depth);
	pr->keys--;
	fclose(pr->out);
	pr->out = out;
	if (!ret && text && text[0] == '"')
		fwrite(text, 1, len, out);
	else if (!ret)
		text_print((const u8 *)text, len, out);
	free(text);
	return ret;
}

static int map_print(struct printer *pr, u64 n, u32 depth)
{
	int ret = 0;

	putc('{', pr->out);
	for (u64 i = 0; !ret && i < n; i++) {
		if (i)
			putc(',', pr->out);
		ret = key_print(pr, depth);
		putc(':', pr->out);
		if (!ret)
			ret = value_print(pr, depth);
	}
	putc('}', pr->out);
	return ret;
}

/* Types whose first byte is from c0 to df. */
static int long_print(struct printer *pr, u8 first, u32 depth)
{
	u32 width = 1u << (first & 3); /* of numbers */
	u64 v;

	switch (first) {
	case 0xc0:
		fputs("null", pr->out);
		break;
	case 0xc2:
	case 0xc3:
		fputs(first == 0xc2 ? "false" : "true", pr->out);
		break;
	case 0xc4 ... 0xc6:
		bytes_print(pr, be_read(pr, 1u << (first - 0xc4)), false);
		break;
	case 0xc7 ... 0xc9:
		ext_print(pr, be_read(pr, 1u << (first - 0xc7)));
		break;
	case 0xca:
	case 0xcb:
		float_bits_print(pr, first == 0xca ? 4 : 8);
		break;
	case 0xcc ... 0xcf:
		fprintf(pr->out, "%llu", (unsigned long long)be_read(pr, width));
		break;
	case 0xd0 ... 0xd3:
		v = be_read(pr, width);
		/* the sign bit of the narrow number moves up */
		if (width < 8 && v >> (width * 8 - 1))
			v |= UINT64_MAX << (width * 8);
		fprintf(pr->out, "%lld", (long long)v);
		break;
	case 0xd4 ... 0xd8:
		ext_print(pr, 1u << (first - 0xd4));
		break;
	case 0xd9 ... 0xdb:
		bytes_print(pr, be_read(pr, 1u << (first - 0xd9)), true);
		break;
	case 0xdc:
	case 0xdd:
		return array_print(pr, be_read(pr, first == 0xdc ? 2 : 4), depth);
	case 0xde:
	case 0xdf:
		return map_print(pr, be_read(pr, first == 0xde ? 2 : 4), depth);
	default:
		return -EBADMSG;
	}
	return 0;
}

static int value_print(struct printer *pr, u32 depth)
{
	u8 first = (u8)be_read(pr, 1);

	urd_assert(depth <= URD_NESTING_MAX);
	if (first <= 0x7f)
		fprintf(pr->out, "%d", first);
	else if (first <= 0x8f)
		return map_print(pr, first & 0x0f, depth + 1);
	else if (first <= 0x9f)
		return array_print(pr, first & 0x0f, depth + 1);
	else if (first <= 0xbf)
		bytes_print(pr, first & 0x1f, true);
	else if (first <= 0xdf)
		return long_print(pr, first, depth + 1);
	else
		fprintf(pr->out, "%d", (int8_t)first);
	return 0;
}

int urd_json_print(const u8 *p, size_t len, FILE *out)
{
	struct printer pr = { .p = p, .end = p + len, .out = out };
	s64 whole = urd_mp_len(p, len);

	/* from here on lengths are known to fit and the depth to be bounded */
	if (whole < 0)
		return whole == -EAGAIN ? -EBADMSG : (int)whole;
	if ((size_t)whole != len)
		return -EBADMSG;
	return value_print(&pr, 0);
}
