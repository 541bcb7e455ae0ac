// SPDX-License-Identifier: MIT
/*
 * Values with units.  A number without one is the surest trap of a
 * configuration, for every program means another unit; so we refuse it, and no
 * number means "default" or "never" in secret.
 */
#include "cli/config_value.h"

#include <ctype.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#include "cli/suggest.h"

/* Largest number of bytes that may stand without a unit. */
#define BARE_SIZE_MAX 4096u

struct unit {
	const char *name;
	u64 factor;
};

/* biggest first, the order within a compound duration */
static const struct unit duration_units[] = {
	{ "d", 86400 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC }, { "m", 60 * NSEC_PER_SEC },
	{ "s", NSEC_PER_SEC },	       { "ms", NSEC_PER_MSEC },	     { "us", NSEC_PER_USEC },
};

static const struct unit size_units[] = {
	{ "GiB", 1ull << 30 }, { "MiB", 1ull << 20 }, { "KiB", 1ull << 10 }, { "B", 1 },
	{ "G", 1ull << 30 },   { "M", 1ull << 20 },   { "K", 1ull << 10 },
};

int urd_why_set(struct urd_complaint *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static const struct unit *unit_find(const struct unit *units, size_t nr, const char *name,
				    size_t len)
{
	for (size_t i = 0; i < nr; i++) {
		if (strlen(units[i].name) == len && !strncmp(units[i].name, name, len))
			return &units[i];
	}
	return NULL;
}

/* Digits at @*at; advances behind them. False if there are none or too many. */
static bool digits_read(const char **at, u64 *v)
{
	const char *p = *at;

	*v = 0;
	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(*v, 10, v) ||
		    __builtin_add_overflow(*v, (u64)(*p - '0'), v))
			return false;
	}
	if (p == *at)
		return false;
	*at = p;
	return true;
}

static size_t letters(const char *p)
{
	size_t n = 0;

	while (isalpha((unsigned char)p[n]))
		n++;
	return n;
}

int urd_value_duration(const char *text, bool off_ok, u64 *ns, struct urd_complaint *why)
{
	const char *at = text;
	size_t last = 0;
	u64 sum = 0;

	if (!strcmp(text, "off")) {
		*ns = URD_OFF;
		return off_ok ?
			       0 :
			       urd_why_set(why, "cannot be \"off\", write a duration like \"30s\"");
	}
	while (*at) {
		const struct unit *unit;
		size_t len;
		u64 v;

		if (!digits_read(&at, &v))
			return urd_why_set(why,
					   "\"%s\" is not a duration, write it like \"30s\" or "
					   "\"1m30s\"",
					   text);
		len = letters(at);
		if (!len && !*at && at != text && !sum && !last) {
			*ns = v;
			return v ? urd_why_set(why,
					       "duration \"%s\" needs a unit (us ms s m h d), "
					       "perhaps \"%ss\"",
					       text, text) :
				   0;
		}
		unit = unit_find(duration_units, ARRAY_SIZE(duration_units), at, len);
		if (!unit)
			return urd_why_set(
				why, "\"%s\" is not a duration, its units are us ms s m h d", text);
		if (last && (size_t)(unit - duration_units) < last)
			return urd_why_set(why,
					   "\"%s\" is not a duration, write the bigger unit first "
					   "and each once",
					   text);
		last = (size_t)(unit - duration_units) + 1;
		at += len;
		if (__builtin_mul_overflow(v, unit->factor, &v) ||
		    __builtin_add_overflow(sum, v, &sum) || sum > INT64_MAX)
			return urd_why_set(why, "\"%s\" is too long, 106751d is the limit%s", text,
					   off_ok ? ", or write \"off\"" : "");
	}
	if (at == text)
		return urd_why_set(why, "is empty, write a duration like \"30s\"");
	*ns = sum;
	return 0;
}

int urd_value_size(const char *text, u64 *bytes, struct urd_complaint *why)
{
	const struct unit *unit;
	const char *at = text;
	size_t len;
	u64 v;

	if (!digits_read(&at, &v))
		return urd_why_set(
			why, "\"%s\" is not a size, write it like \"64KiB\" or \"16MiB\"", text);
	if (!*at && v <= BARE_SIZE_MAX) {
		*bytes = v;
		return 0;
	}
	if (!*at)
		return urd_why_set(why, "size \"%s\" needs a unit (B KiB MiB GiB), perhaps \"%sB\"",
				   text, text);
	len = letters(at);
	unit = unit_find(size_units, ARRAY_SIZE(size_units), at, len);
	if (unit && !at[len]) {
		if (__builtin_mul_overflow(v, unit->factor, bytes))
			return urd_why_set(why, "\"%s\" is too large, write a smaller size", text);
		return 0;
	}
	/* KB, kb, k, Mib: the letter is clear, the meaning is to be spelt */
	if (len && !at[len] && strchr("kKmMgG", at[0]))
		return urd_why_set(why, "\"%s\" is not a size, perhaps \"%llu%ciB\" (1024-based)",
				   text, (unsigned long long)v, toupper((unsigned char)at[0]));
	return urd_why_set(why, "\"%s\" is not a size, its units are B KiB MiB GiB (or K M G)",
			   text);
}

int urd_value_count(const char *text, u64 *n, struct urd_complaint *why)
{
	const char *at = text;

	if (!digits_read(&at, n) || *at)
		return urd_why_set(why, "\"%s\" is not a number, write digits only", text);
	return 0;
}

int urd_value_signed(const char *text, s64 *n, struct urd_complaint *why)
{
	bool minus = *text == '-';
	const char *at = text + minus;
	u64 v;

	if (!digits_read(&at, &v) || *at || v > INT32_MAX)
		return urd_why_set(why, "\"%s\" is not a number, write it like 5 or -5", text);
	*n = minus ? -(s64)v : (s64)v;
	return 0;
}

int urd_value_octal(const char *text, u64 *n, struct urd_complaint *why)
{
	size_t len = strlen(text);

	if (!len || len > 6 || strspn(text, "01234567") != len)
		return urd_why_set(why, "\"%s\" is not octal, write it like 022 or 0027", text);
	*n = strtoul(text, NULL, 8);
	return 0;
}

int urd_value_bool(const char *text, bool *v, struct urd_complaint *why)
{
	static const char *const yes[] = { "true", "yes", "on" };
	static const char *const no[] = { "false", "no", "off" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		*v = !strcmp(text, yes[i]);
		if (*v || !strcmp(text, no[i]))
			return 0;
	}
	return urd_why_set(why, "\"%s\" is neither true nor false", text);
}

int urd_value_word(const char *text, const char *const *words, u32 *index,
		   struct urd_complaint *why)
{
	struct urd_suggest s;
	char all[160] = "";

	urd_suggest_init(&s, text);
	for (u32 i = 0; words[i]; i++) {
		size_t len = strlen(all);

		if (!strcmp(text, words[i])) {
			*index = i;
			return 0;
		}
		urd_suggest_try(&s, words[i]);
		snprintf(all + len, sizeof(all) - len, "%s\"%s\"", len ? ", " : "", words[i]);
	}
	if (s.best)
		return urd_why_set(why, "\"%s\" is unknown, did you mean \"%s\"?", text, s.best);
	return urd_why_set(why, "\"%s\" is unknown, write one of %s", text, all);
}

/* --- addresses --------------------------------------------------------------- */

static int owner_parse(const char *name, struct urd_listen_conf *listen, struct urd_complaint *why)
{
	const struct passwd *pw = getpwnam(name);
	u64 id;

	if (pw)
		listen->uid = pw->pw_uid;
	else if (!urd_value_count(name, &id, why) && id < UINT32_MAX)
		listen->uid = (uid_t)id;
	else
		return urd_why_set(why, "there is no user \"%s\", write owner=NAME or owner=UID",
				   name);
	return 0;
}

static int group_parse(const char *name, struct urd_listen_conf *listen, struct urd_complaint *why)
{
	const struct group *gr = getgrnam(name);
	u64 id;

	if (gr)
		listen->gid = gr->gr_gid;
	else if (!urd_value_count(name, &id, why) && id < UINT32_MAX)
		listen->gid = (gid_t)id;
	else
		return urd_why_set(why, "there is no group \"%s\", write group=NAME or group=GID",
				   name);
	return 0;
}

static int mode_parse(const char *text, struct urd_listen_conf *listen, struct urd_complaint *why)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	if (!isdigit((unsigned char)text[0]) || *end || v == 0 || v > 0777)
		return urd_why_set(why, "\"%s\" is not a socket's mode, write it like mode=0660",
				   text);
	listen->mode = (mode_t)v;
	return 0;
}

static int query_parse(char *query, struct urd_listen_conf *listen, struct urd_complaint *why)
{
	char *save = NULL;

	for (char *p = strtok_r(query, "&", &save); p; p = strtok_r(NULL, "&", &save)) {
		char *value = strchr(p, '=');
		int ret;

		if (value)
			*value++ = '\0';
		else
			value = p + strlen(p);
		if (!strcmp(p, "mode"))
			ret = mode_parse(value, listen, why);
		else if (!strcmp(p, "owner"))
			ret = owner_parse(value, listen, why);
		else if (!strcmp(p, "group"))
			ret = group_parse(value, listen, why);
		else
			ret = urd_why_set(
				why, "an address has no \"%s\", it has mode, owner and group", p);
		if (ret)
			return ret;
	}
	return 0;
}

static int tcp_check(const char *text, struct urd_complaint *why)
{
	const char *host = text + 4;
	const char *colon = strrchr(host, ':');
	u64 port;

	if (!colon || colon == host)
		return urd_why_set(why,
				   "\"%s\" lacks host or port, write it like "
				   "\"tcp:127.0.0.1:7070\"",
				   text);
	if (memchr(host, ':', (size_t)(colon - host)) && (host[0] != '[' || colon[-1] != ']'))
		return urd_why_set(why,
				   "\"%s\" is ambiguous, put the IPv6 address in brackets like "
				   "\"tcp:[::1]:7070\"",
				   text);
	if (urd_value_count(colon + 1, &port, why) || port > 65535)
		return urd_why_set(why, "\"%s\" is not a port, write 0 to 65535", colon + 1);
	return 0;
}

int urd_value_listen(char *text, struct urd_listen_conf *listen, struct urd_complaint *why)
{
	size_t path_max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
	char *query = strchr(text, '?');

	*listen = (struct urd_listen_conf){
		.address = text,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
	};
	if (!strncmp(text, "tcp:", 4))
		return query ? urd_why_set(why, "a tcp address has no options, drop \"%s\"",
					   query) :
			       tcp_check(text, why);
	if (strncmp(text, "unix:", 5))
		return urd_why_set(why,
				   "\"%s\" is not an address, write \"unix:/path\" or "
				   "\"tcp:host:port\"",
				   text);
	if (query)
		*query++ = '\0';
	if (!text[5])
		return urd_why_set(why, "the address has no path, write it like "
					"\"unix:/run/urd/urd.sock\"");
	if (strlen(text + 5) > path_max)
		return urd_why_set(
			why, "the path of a socket has at most %zu bytes, choose a shorter one",
			path_max);
	return query ? query_parse(query, listen, why) : 0;
}

int urd_value_pool_name(const char *text, struct urd_complaint *why)
{
	size_t len = strlen(text);
	size_t good =
		strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");

	if (!len || len > 64 || good != len)
		return urd_why_set(why,
				   "\"%.80s\" is not a pool's name, use 1 to 64 letters, digits, _ "
				   "and -",
				   text);
	return 0;
}

/* --- back to text ---------------------------------------------------------------- */

void urd_value_duration_show(u64 ns, char *buf, size_t len)
{
	size_t at = 0;

	if (ns == URD_OFF || ns == 0) {
		snprintf(buf, len, "%s", ns ? "off" : "0");
		return;
	}
	buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(duration_units); i++) {
		u64 v = ns / duration_units[i].factor;

		ns %= duration_units[i].factor;
		if (v && at < len)
			at += (size_t)snprintf(buf + at, len - at, "%llu%s", (unsigned long long)v,
					       duration_units[i].name);
	}
}

void urd_value_size_show(u64 bytes, char *buf, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(size_units); i++) {
		if (bytes && bytes % size_units[i].factor == 0) {
			snprintf(buf, len, "%llu%s",
				 (unsigned long long)(bytes / size_units[i].factor),
				 size_units[i].name);
			return;
		}
	}
	snprintf(buf, len, "0");
}
