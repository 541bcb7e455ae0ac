// SPDX-License-Identifier: MIT
/*
 * Setting one key of a configuration in the making: the text is parsed by the
 * key's type, checked against its bounds and stored at its offset.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/config_build.h"

int urd_build_fail(struct urd_build *b, const char *where, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(b->err, b->err_len, "%s: ", where);

	va_start(ap, fmt);
	if (n >= 0 && (size_t)n < b->err_len)
		vsnprintf(b->err + n, b->err_len - (size_t)n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

void *urd_build_alloc(struct urd_build *b, size_t size)
{
	struct config_mem *mem = calloc(1, sizeof(*mem) + size);

	/* a few kilobytes at start, before anything runs: nothing better can be done */
	urd_assert(mem != NULL);
	mem->next = b->config->mem;
	b->config->mem = mem;
	return mem->bytes;
}

static char *build_strdup(struct urd_build *b, const char *s)
{
	size_t size = strlen(s) + 1;

	return memcpy(urd_build_alloc(b, size), s, size);
}

const char *urd_build_str(struct urd_build *b, const char *fmt, ...)
{
	va_list ap;
	int n;
	char *s;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	s = urd_build_alloc(b, (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(s, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return s;
}

struct urd_pool_build *urd_build_pool(struct urd_build *b, const char *name)
{
	for (u32 i = 0; i < b->pools_nr; i++) {
		if (!strcmp(b->pools[i].conf.name, name))
			return &b->pools[i];
	}
	return NULL;
}

int urd_build_pool_add(struct urd_build *b, const char *name, const char *where,
		       struct urd_pool_build **pool)
{
	struct urd_complaint why;

	if (urd_value_pool_name(name, &why))
		return urd_build_fail(b, where, "%s", why.text);
	if (b->pools_nr == URD_POOLS_MAX)
		return urd_build_fail(b, where, "more than %u pools, start a second urd",
				      URD_POOLS_MAX);
	*pool = &b->pools[b->pools_nr++];
	**pool = (struct urd_pool_build){ .conf = URD_POOL_CONF_INIT };
	(*pool)->conf.name = build_strdup(b, name);
	(*pool)->where = where;
	return 0;
}

/* An error of a key; -o names the key in its place already. */
static int key_fail(struct urd_build *b, const char *where, const struct urd_key *key,
		    const struct urd_complaint *why)
{
	if (!strncmp(where, "-o ", 3))
		return urd_build_fail(b, where, "%s", why->text);
	return urd_build_fail(b, where, "%s: %s", key->name, why->text);
}

static void bound_show(const struct urd_key *key, u64 v, char *buf, size_t len)
{
	if (key->type == URD_KEY_SIZE)
		urd_value_size_show(v, buf, len);
	else if (key->type == URD_KEY_DURATION)
		urd_value_duration_show(v, buf, len);
	else
		snprintf(buf, len, "%llu", (unsigned long long)v);
}

static int bounds_check(const struct urd_key *key, const char *text, u64 v,
			struct urd_complaint *why)
{
	char min[64];
	char max[64];

	if ((v >= key->min && v <= key->max) || (v == URD_OFF && key->off_ok))
		return 0;
	bound_show(key, key->min, min, sizeof(min));
	bound_show(key, key->max, max, sizeof(max));
	if (key->type == URD_KEY_DURATION)
		return urd_why_set(why, "\"%s\" is too short, write %s or more%s", text, min,
				   key->off_ok ? ", or \"off\" for no limit" : "");
	return urd_why_set(why, "%s is out of range, write %s to %s", text, min, max);
}

static int item_check(const struct urd_key *key, const char *text, struct urd_complaint *why)
{
	bool env = !strcmp(key->name, "env");
	bool env_pass = !strcmp(key->name, "env_pass");
	const char *equals = strchr(text, '=');

	if (env && (!equals || equals == text))
		return urd_why_set(why, "\"%s\" sets nothing, write \"NAME=value\"", text);
	if (env_pass && (equals || !*text))
		return urd_why_set(why, "\"%s\" is not a name; to set a value use env", text);
	return 0;
}

int urd_build_check_item(struct urd_build *b, const struct urd_key *key, const char *text,
			 const char *where)
{
	struct urd_listen_conf listen;
	struct urd_complaint why;
	int ret;

	if (key->type == URD_KEY_LISTEN)
		ret = urd_value_listen(build_strdup(b, text), &listen, &why);
	else
		ret = item_check(key, text, &why);
	return ret ? key_fail(b, where, key, &why) : 0;
}

static int command_check(const char *const *text, u32 nr, struct urd_complaint *why)
{
	if (!nr || !*text[0])
		return urd_why_set(why, "names no program, write a list like "
					"{ \"php\", \"worker.php\" } (-o: php,worker.php)");
	if (nr == 1 && strpbrk(text[0], " \t"))
		return urd_why_set(why,
				   "\"%s\" is one word with a space in it and there is no shell; "
				   "write a list like { \"php\", \"worker.php\" } "
				   "(-o: php,worker.php)",
				   text[0]);
	return 0;
}

static int list_set(struct urd_build *b, const struct urd_key *key, void *to,
		    const char *const *text, u32 nr, struct urd_complaint *why)
{
	const char **list = urd_build_alloc(b, (nr + 1) * sizeof(*list));
	int ret = 0;

	if (!strcmp(key->name, "command"))
		ret = command_check(text, nr, why);
	for (u32 i = 0; !ret && i < nr; i++) {
		list[i] = build_strdup(b, text[i]);
		ret = item_check(key, text[i], why);
	}
	if (!ret)
		*(const char *const **)to = list;
	return ret;
}

static int listen_set(struct urd_build *b, const char *const *text, u32 nr,
		      struct urd_complaint *why)
{
	struct urd_listen_conf *list = urd_build_alloc(b, nr * sizeof(*list));
	struct urd_conf *conf = &b->config->values.conf;
	int ret = 0;

	if (nr > URD_LISTEN_MAX)
		return urd_why_set(why, "more than %u addresses, write fewer", URD_LISTEN_MAX);
	for (u32 i = 0; !ret && i < nr; i++) {
		ret = urd_value_listen(build_strdup(b, text[i]), &list[i], why);
		for (u32 j = 0; !ret && j < i; j++) {
			if (!strcmp(list[j].address, list[i].address))
				ret = urd_why_set(why, "\"%s\" stands there twice, drop one",
						  list[i].address);
		}
	}
	conf->listen = list;
	conf->listen_nr = nr;
	return ret;
}

static int admin_set(struct urd_build *b, const char *text, struct urd_complaint *why)
{
	struct urd_listen_conf *admin = &b->config->values.admin;
	int ret = urd_value_listen(build_strdup(b, text), admin, why);

	if (!ret && strncmp(admin->address, "unix:", 5))
		ret = urd_why_set(why, "\"%s\" is open to the network, write \"unix:/path\"",
				  admin->address);
	admin->admin = true;
	return ret;
}

static int number_set(const struct urd_key *key, void *to, const char *text,
		      struct urd_complaint *why)
{
	u64 v = 0;
	int ret;

	if (key->unlimited_ok && !strcmp(text, "unlimited")) {
		*(u64 *)to = URD_RLIMIT_NONE;
		return 0;
	}
	if (key->type == URD_KEY_DURATION)
		ret = urd_value_duration(text, key->off_ok, &v, why);
	else if (key->type == URD_KEY_SIZE)
		ret = urd_value_size(text, &v, why);
	else
		ret = urd_value_count(text, &v, why);
	if (!ret)
		ret = bounds_check(key, text, v, why);
	if (ret)
		return ret;
	if (key->type == URD_KEY_DURATION || key->width == sizeof(u64))
		*(u64 *)to = v;
	else
		*(u32 *)to = (u32)v;
	return 0;
}

/* Numbers that may be below zero, or that are not decimal, or that are a choice. */
static int int_set(const struct urd_key *key, s32 *to, const char *text, struct urd_complaint *why)
{
	s64 min = (s64)key->min;
	s64 max = (s64)key->max;
	bool on = false;
	u64 bits = 0;
	s64 v = 0;
	int ret;

	if (key->type == URD_KEY_SWITCH) {
		ret = urd_value_bool(text, &on, why);
		if (!ret)
			*to = on;
		return ret;
	}
	if (key->type == URD_KEY_OCTAL) {
		ret = urd_value_octal(text, &bits, why);
		if (!ret && bits > key->max)
			ret = urd_why_set(why, "%s is out of range, write 0 to 0%llo", text,
					  (unsigned long long)key->max);
		if (!ret)
			*to = (s32)bits;
		return ret;
	}
	ret = urd_value_signed(text, &v, why);
	if (!ret && (v < min || v > max))
		ret = urd_why_set(why, "%s is out of range, write %lld to %lld", text,
				  (long long)min, (long long)max);
	if (!ret)
		*to = (s32)v;
	return ret;
}

static int value_set(struct urd_build *b, const struct urd_key *key, void *base,
		     const char *const *text, u32 nr, struct urd_complaint *why)
{
	void *to = (u8 *)base + key->offset;
	u32 word;
	int ret;

	switch (key->type) {
	case URD_KEY_LIST:
		return list_set(b, key, to, text, nr, why);
	case URD_KEY_LISTEN:
		return listen_set(b, text, nr, why);
	case URD_KEY_ADMIN:
		return admin_set(b, text[0], why);
	case URD_KEY_STRING:
		if (!*text[0])
			return urd_why_set(why, "is empty, drop it or write a value");
		*(const char **)to = build_strdup(b, text[0]);
		return 0;
	case URD_KEY_BOOL:
		return urd_value_bool(text[0], to, why);
	case URD_KEY_SIGNED:
	case URD_KEY_OCTAL:
	case URD_KEY_SWITCH:
		return int_set(key, to, text[0], why);
	case URD_KEY_WORD:
		ret = urd_value_word(text[0], key->words, &word, why);
		if (!ret)
			*(unsigned int *)to = word; /* all our enums are of this size */
		return ret;
	case URD_KEY_WORKERS:
		ret = number_set(key, to, text[0], why);
		if (!ret)
			((struct urd_pool_conf *)base)->max_workers =
				((struct urd_pool_conf *)base)->min_workers;
		return ret;
	case URD_KEY_COUNT:
	case URD_KEY_SIZE:
	case URD_KEY_DURATION:
		break;
	}
	return number_set(key, to, text[0], why);
}

_Static_assert(sizeof(enum urd_gone) == sizeof(unsigned int), "enums are stored as unsigned int");

int urd_build_set(struct urd_build *b, const struct urd_key *key, struct urd_pool_build *pool,
		  const char *const *text, u32 nr, const char *where)
{
	void *base = pool ? (void *)&pool->conf : (void *)&b->config->values;
	struct urd_complaint why;

	urd_assert((key->section == URD_SECTION_POOL) == (pool != NULL));
	if (value_set(b, key, base, text, nr, &why))
		return key_fail(b, where, key, &why);
	if (pool)
		pool->at[urd_key_index(key)] = where;
	else
		b->at[urd_key_index(key)] = where;
	return 0;
}
