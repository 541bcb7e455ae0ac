// SPDX-License-Identifier: MIT
/*
 * JSON to MessagePack: jansson parses, msgpack-c packs.  jansson knows integers
 * up to 2^63 - 1 only; those above are quoted before it sees them, under a key
 * of ours, and unquoted while packing.
 */
#include <jansson.h>
#include <math.h>
#include <msgpack.h>
#include <stdlib.h>

#include "cli/json.h"

/* Digits of 2^63 and of 2^64 - 1. */
#define BIG_DIGITS_MIN 19
#define BIG_DIGITS_MAX 20

/* Names an integer that jansson cannot hold; never leaves this file. */
#define BIG_KEY "$u64"

struct packing {
	msgpack_packer pk;
	struct urd_json_buf *out;
	bool big;    /* big integers stand quoted in the tree */
	bool failed; /* no memory for the output */
	char *err;
	size_t err_len;
};

static int buf_write(void *data, const char *p, size_t len)
{
	struct packing *packing = data;
	struct urd_json_buf *buf = packing->out;

	if (buf->cap - buf->len < len) {
		size_t cap = urd_max(buf->cap * 2, buf->len + len + 256);
		u8 *grown = realloc(buf->p, cap);

		if (!grown) {
			packing->failed = true;
			return -1;
		}
		buf->p = grown;
		buf->cap = cap;
	}
	if (len)
		memcpy(buf->p + buf->len, p, len);
	buf->len += len;
	return 0;
}

static int pack_fail(struct packing *p, int ret, const char *text)
{
	snprintf(p->err, p->err_len, "%s", text);
	return ret;
}

static int value_pack(struct packing *p, json_t *v, u32 depth);

/* --- integers beyond jansson's ----------------------------------------------------- */

/* Is the token an integer from 2^63 to 2^64 - 1? */
static bool is_big(const char *token, size_t len)
{
	char digits[BIG_DIGITS_MAX + 1];
	unsigned long long v;

	if (len < BIG_DIGITS_MIN || len > BIG_DIGITS_MAX)
		return false;
	memcpy(digits, token, len);
	digits[len] = '\0';
	if (strspn(digits, "0123456789") != len || digits[0] == '0')
		return false;
	errno = 0;
	v = strtoull(digits, NULL, 10);
	return !errno && v > INT64_MAX;
}

/* Bytes of the string, or of the run of a number's characters, or 1. */
static size_t token_len(const char *text, size_t len)
{
	size_t n = 0;

	if (text[0] == '"') {
		for (n = 1; n < len && text[n] != '"'; n++)
			n += text[n] == '\\';
		return urd_min(n + 1, len);
	}
	while (n < len && text[n] && strchr("+-.eE0123456789", text[n]))
		n++;
	return n ? n : 1;
}

/* Copy @text with each big integer N as an object that holds its digits. */
static void big_quote(const char *text, size_t len, FILE *out)
{
	while (len) {
		size_t n = token_len(text, len);

		if (is_big(text, n))
			fprintf(out, "{\"" BIG_KEY "\":\"%.*s\"}", (int)n, text);
		else
			fwrite(text, 1, n, out);
		text += n;
		len -= n;
	}
}

static json_t *json_read(struct packing *p, const char *text, size_t len, json_error_t *error)
{
	const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
	json_t *root = json_loadb(text, len, flags, error);
	char *quoted = NULL;
	size_t quoted_len = 0;
	json_error_t second;
	FILE *f;

	if (root || json_error_code(error) != json_error_numeric_overflow)
		return root;
	f = open_memstream(&quoted, &quoted_len);
	if (!f)
		return NULL;
	p->big = true;
	big_quote(text, len, f);
	if (fclose(f) == 0)
		root = json_loadb(quoted, quoted_len, flags, &second);
	free(quoted);
	return root;
}

/* --- what JSON lacks ------------------------------------------------------------------ */

static int bin_pack(struct packing *p, const json_t *text, bool ext, int8_t type)
{
	size_t len = json_string_length(text);
	u8 *bytes = malloc(len / 4 * 3 + 1);
	s64 n = bytes ? urd_base64_decode(json_string_value(text), len, bytes) : -ENOMEM;

	if (n >= 0 && ext)
		msgpack_pack_ext_with_body(&p->pk, bytes, (size_t)n, type);
	else if (n >= 0)
		msgpack_pack_bin_with_body(&p->pk, bytes, (size_t)n);
	free(bytes);
	if (n < 0)
		return pack_fail(p, (int)n,
				 n == -ENOMEM ? "out of memory" :
						"\"$bin\" and \"$ext\" hold base64 "
						"with padding");
	return 0;
}

static int ext_pack(struct packing *p, const json_t *v)
{
	const json_t *type = json_array_get(v, 0);
	const json_t *text = json_array_get(v, 1);

	if (json_array_size(v) != 2 || !json_is_integer(type) || !json_is_string(text) ||
	    json_integer_value(type) < INT8_MIN || json_integer_value(type) > INT8_MAX)
		return pack_fail(p, -EINVAL, "\"$ext\" holds [type from -128 to 127, base64]");
	return bin_pack(p, text, true, (int8_t)json_integer_value(type));
}

static int float_pack(struct packing *p, const char *text)
{
	double v;

	if (!strcmp(text, "nan"))
		v = NAN;
	else if (!strcmp(text, "inf"))
		v = INFINITY;
	else if (!strcmp(text, "-inf"))
		v = -INFINITY;
	else
		return pack_fail(p, -EINVAL, "\"$float\" holds \"nan\", \"inf\" or \"-inf\"");
	msgpack_pack_double(&p->pk, v);
	return 0;
}

/* An object of one key that stands for something else: 1 done, 0 it is none. */
static int special_pack(struct packing *p, const char *key, json_t *v)
{
	int ret;

	if (!strcmp(key, "$bin") && json_is_string(v))
		ret = bin_pack(p, v, false, 0);
	else if (!strcmp(key, "$ext") && json_is_array(v))
		ret = ext_pack(p, v);
	else if (!strcmp(key, "$float") && json_is_string(v))
		ret = float_pack(p, json_string_value(v));
	else if (p->big && !strcmp(key, BIG_KEY) && json_is_string(v) &&
		 is_big(json_string_value(v), json_string_length(v)))
		ret = msgpack_pack_uint64(&p->pk, strtoull(json_string_value(v), NULL, 10));
	else
		return 0;
	return ret ? ret : 1;
}

/* --- the tree ----------------------------------------------------------------------------- */

static int object_pack(struct packing *p, json_t *v, u32 depth)
{
	const char *key;
	json_t *item;
	int ret = 0;

	if (json_object_size(v) == 1) {
		key = json_object_iter_key(json_object_iter(v));
		ret = special_pack(p, key, json_object_get(v, key));
		if (ret)
			return ret > 0 ? 0 : ret;
	}
	msgpack_pack_map(&p->pk, json_object_size(v));
	json_object_foreach(v, key, item)
	{
		msgpack_pack_str_with_body(&p->pk, key, strlen(key));
		ret = value_pack(p, item, depth + 1);
		if (ret)
			break;
	}
	return ret;
}

static int array_pack(struct packing *p, json_t *v, u32 depth)
{
	size_t n = json_array_size(v);
	int ret = 0;

	msgpack_pack_array(&p->pk, n);
	for (size_t i = 0; !ret && i < n; i++)
		ret = value_pack(p, json_array_get(v, i), depth + 1);
	return ret;
}

static int value_pack(struct packing *p, json_t *v, u32 depth)
{
	if ((json_is_object(v) || json_is_array(v)) && depth >= URD_JSON_DEPTH_MAX)
		return pack_fail(p, -E2BIG, "nested too deep, 63 levels are the limit");
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return object_pack(p, v, depth);
	case JSON_ARRAY:
		return array_pack(p, v, depth);
	case JSON_STRING:
		msgpack_pack_str_with_body(&p->pk, json_string_value(v), json_string_length(v));
		break;
	case JSON_INTEGER:
		msgpack_pack_int64(&p->pk, json_integer_value(v));
		break;
	case JSON_REAL:
		msgpack_pack_double(&p->pk, json_real_value(v));
		break;
	case JSON_TRUE:
		msgpack_pack_true(&p->pk);
		break;
	case JSON_FALSE:
		msgpack_pack_false(&p->pk);
		break;
	case JSON_NULL:
		msgpack_pack_nil(&p->pk);
		break;
	}
	return 0;
}

int urd_json_pack(const char *text, size_t len, struct urd_json_buf *out, char *err, size_t err_len)
{
	struct packing p = { .out = out, .err = err, .err_len = err_len };
	json_error_t error = { .line = 0 };
	json_t *root = json_read(&p, text, len, &error);
	int ret;

	if (!root) {
		snprintf(err, err_len, "not JSON: line %d, column %d: %s", error.line, error.column,
			 error.text);
		return -EINVAL;
	}
	msgpack_packer_init(&p.pk, &p, buf_write);
	ret = value_pack(&p, root, 0);
	json_decref(root);
	if (!ret && p.failed)
		ret = pack_fail(&p, -ENOMEM, "out of memory");
	return ret;
}
