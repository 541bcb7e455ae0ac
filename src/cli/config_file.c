// SPDX-License-Identifier: MIT
/*
 * The configuration file, read by libconfuse with every option as a string: the
 * key table, not the parser, knows what values mean.  The parser calls us after
 * each value, so that an error has the line it stands on.
 *
 * The parser lets a file end within a section.  We therefore append an option of
 * our own and see whether it arrives at the top.
 */
#include <confuse.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/config_build.h"

#define SENTINEL "urd-end-of-file"
/* No honest configuration is larger. */
#define FILE_MAX (4u << 20)

/* What libconfuse says about an unknown option, up to its name. */
#define NO_SUCH_OPTION "no such option '"

/* libconfuse hands nothing of ours to its callbacks, and its lexer is global anyway. */
static struct {
	struct urd_build *build;
	const char *path;
	int lines;
	int ret;
} parsing;

static const char *where_is(cfg_t *cfg)
{
	return urd_build_str(parsing.build, "%s:%d", cfg->filename ? cfg->filename : parsing.path,
			     cfg->line);
}

static enum urd_section section_of(cfg_t *cfg)
{
	for (u32 i = URD_SECTION_LOG; i < URD_SECTION_NR; i++) {
		if (!strcmp(cfg_name(cfg), urd_section_name((enum urd_section)i)))
			return (enum urd_section)i;
	}
	return URD_SECTION_ROOT;
}

/* The pool whose section is being parsed; begun with its first key. */
static int pool_of(cfg_t *cfg, struct urd_pool_build **pool)
{
	*pool = urd_build_pool(parsing.build, cfg_title(cfg));
	if (*pool)
		return 0;
	return urd_build_pool_add(parsing.build, cfg_title(cfg), where_is(cfg), pool);
}

static int list_commit(cfg_t *cfg, const struct urd_key *key, struct urd_pool_build *pool)
{
	struct urd_build *b = parsing.build;
	cfg_opt_t *opt = cfg_getopt(cfg, key->name);
	const char **at = pool ? &pool->at[urd_key_index(key)] : &b->at[urd_key_index(key)];
	u32 nr = cfg_opt_size(opt);
	const char **text;

	if (!*at)
		return 0; /* no element was seen: absent, or empty */
	text = urd_build_alloc(b, (nr + 1) * sizeof(*text));
	for (u32 i = 0; i < nr; i++)
		text[i] = cfg_opt_getnstr(opt, i);
	return urd_build_set(b, key, pool, text, nr, *at);
}

static bool key_is_list(const struct urd_key *key)
{
	return key->type == URD_KEY_LIST || key->type == URD_KEY_LISTEN;
}

/* A value was parsed: check an element of a list, set anything else. */
static int value_seen(cfg_t *cfg, const struct urd_key *key, const char *text)
{
	struct urd_build *b = parsing.build;
	const char *where = where_is(cfg);
	struct urd_pool_build *pool = NULL;
	const char **at;
	int ret = 0;

	if (key->section == URD_SECTION_POOL)
		ret = pool_of(cfg, &pool);
	if (ret)
		return ret;
	at = pool ? &pool->at[urd_key_index(key)] : &b->at[urd_key_index(key)];
	if (key_is_list(key)) {
		*at = where;
		return urd_build_check_item(b, key, text, where);
	}
	if (*at)
		return urd_build_fail(b, where, "%s is set twice, first at %s, drop one", key->name,
				      *at);
	return urd_build_set(b, key, pool, &text, 1, where);
}

static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
	const struct urd_key *key = urd_key_find(section_of(cfg), opt->name);
	u32 nr = cfg_opt_size(opt);

	urd_assert(key != NULL);
	if (!parsing.ret && nr)
		parsing.ret = value_seen(cfg, key, cfg_opt_getnstr(opt, nr - 1));
	return parsing.ret ? -1 : 0;
}

/* A pool's section was closed. */
static int on_pool(cfg_t *cfg, cfg_opt_t *opt)
{
	cfg_t *sec = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
	const char *const *at;
	struct urd_pool_build *pool;
	int ret = pool_of(sec, &pool);

	for (u32 i = 0; !ret && i < urd_keys_nr; i++) {
		if (urd_keys[i].type == URD_KEY_LIST)
			ret = list_commit(sec, &urd_keys[i], pool);
	}
	if (!ret) {
		pool->where = where_is(cfg);
		at = &pool->at[urd_key_index(urd_key_find(URD_SECTION_POOL, "workers"))];
		/* the rows min_workers and max_workers follow */
		if (at[0] && (at[1] || at[2]))
			ret = urd_build_fail(parsing.build, at[0],
					     "workers sets min_workers and max_workers, drop it or "
					     "drop %s",
					     at[1] ? "min_workers" : "max_workers");
	}
	parsing.ret = ret;
	return ret ? -1 : 0;
}

static int on_include(cfg_t *cfg, cfg_opt_t *opt, int argc, const char **argv)
{
	struct stat st;

	if (argc != 1) {
		parsing.ret = urd_build_fail(parsing.build, where_is(cfg),
					     "include takes one file, write include(\"FILE\")");
		return -1;
	}
	if (stat(argv[0], &st) < 0 || access(argv[0], R_OK) < 0) {
		parsing.ret = urd_build_fail(parsing.build, where_is(cfg),
					     "include: cannot open %s: %s", argv[0],
					     strerror(errno));
		return -1;
	}
	/* the lexer ends the process if it cannot read what it opened */
	if (!S_ISREG(st.st_mode)) {
		parsing.ret = urd_build_fail(parsing.build, where_is(cfg),
					     "include: %s is not a regular file, name one",
					     argv[0]);
		return -1;
	}
	return cfg_include(cfg, opt, argc, argv);
}

static void unknown_option(cfg_t *cfg, const char *where, const char *msg)
{
	enum urd_section section = section_of(cfg);
	char name[128];
	char advice[192];

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(msg, "'"), msg);
	urd_key_advise(section, name, advice, sizeof(advice));
	urd_build_fail(parsing.build, where, "unknown %s \"%s\"%s%s, %s",
		       section == URD_SECTION_ROOT ? "key or section" : "key", name,
		       section == URD_SECTION_ROOT ? "" : " in ", urd_section_name(section),
		       advice);
}

/* The parser's own complaints, in our words where ours help more. */
__attribute__((format(printf, 2, 0))) static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	struct urd_build *b = parsing.build;
	const char *where = where_is(cfg);
	bool in_main = !cfg->filename || !strcmp(cfg->filename, parsing.path);
	char msg[256];

	if (parsing.ret)
		return; /* one error is enough, and ours came first */
	parsing.ret = -EINVAL;
	vsnprintf(msg, sizeof(msg), fmt, ap);
	if ((in_main && cfg->line > parsing.lines) || strstr(msg, "premature end"))
		urd_build_fail(b, urd_build_str(b, "%s:%d", parsing.path, parsing.lines),
			       "the file ends within a string, a list or a section, close it");
	else if (!strncmp(msg, NO_SUCH_OPTION, strlen(NO_SUCH_OPTION)))
		unknown_option(cfg, where, msg + strlen(NO_SUCH_OPTION));
	else if (strstr(msg, "duplicate title"))
		urd_build_fail(b, where,
			       "this pool is defined a second time, rename one or merge them");
	else if (strstr(msg, "missing title"))
		urd_build_fail(b, where, "a pool needs a name, write pool \"NAME\" { }");
	else if (strstr(msg, "unexpected token '{'"))
		urd_build_fail(b, where, "a list where one value is expected, drop the braces");
	else
		urd_build_fail(b, where, "%s, see the examples in the manual", msg);
}

/* One libconfuse option per key of a section; returns how many. */
static u32 options_fill(cfg_opt_t *opts, enum urd_section section)
{
	u32 n = 0;

	for (u32 i = 0; i < urd_keys_nr; i++) {
		const struct urd_key *key = &urd_keys[i];

		if (key->section != section)
			continue;
		if (key_is_list(key))
			opts[n++] = (cfg_opt_t)CFG_STR_LIST(key->name, NULL, CFGF_NODEFAULT);
		else
			opts[n++] = (cfg_opt_t)CFG_STR(key->name, NULL, CFGF_NODEFAULT);
	}
	return n;
}

static cfg_t *parser_new(void)
{
	cfg_opt_t pool[URD_KEYS_MAX + 1];
	cfg_opt_t log[URD_KEYS_MAX + 1];
	cfg_opt_t root[URD_KEYS_MAX + 5];
	char path[128];
	cfg_t *cfg;
	u32 n;

	pool[options_fill(pool, URD_SECTION_POOL)] = (cfg_opt_t)CFG_END();
	log[options_fill(log, URD_SECTION_LOG)] = (cfg_opt_t)CFG_END();
	n = options_fill(root, URD_SECTION_ROOT);
	root[n++] = (cfg_opt_t)CFG_SEC("log", log, CFGF_NONE);
	root[n++] = (cfg_opt_t)CFG_SEC("pool", pool, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	root[n++] = (cfg_opt_t)CFG_FUNC("include", on_include);
	root[n++] = (cfg_opt_t)CFG_STR(SENTINEL, NULL, CFGF_NODEFAULT);
	root[n] = (cfg_opt_t)CFG_END();

	cfg = cfg_init(root, CFGF_NONE);
	urd_assert(cfg != NULL);
	cfg_set_error_function(cfg, on_error);
	cfg_set_validate_func(cfg, "pool", on_pool);
	for (u32 i = 0; i < urd_keys_nr; i++) {
		const char *section = urd_section_name(urd_keys[i].section);

		snprintf(path, sizeof(path), "%s%s%s", section, *section ? "|" : "",
			 urd_keys[i].name);
		cfg_set_validate_func(cfg, path, on_value);
	}
	return cfg;
}

/* The whole file with the sentinel behind it, NUL-terminated; to be freed. */
static int file_read(struct urd_build *b, const char *path, char **text)
{
	static const char tail[] = "\n" SENTINEL " = 1\n";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	size_t used = 0;
	ssize_t n = 1;
	int ret;

	if (fd < 0 || fstat(fd, &st) < 0) {
		ret = -errno;
		urd_build_fail(b, path, "cannot open: %s", strerror(errno));
		goto out_close;
	}
	ret = -EINVAL;
	*text = NULL;
	if (S_ISDIR(st.st_mode)) {
		urd_build_fail(b, path, "is a directory, name a file");
		goto out_close;
	}
	*text = malloc(FILE_MAX + sizeof(tail));
	urd_assert(*text != NULL);
	while (n > 0 && used < FILE_MAX) {
		n = read(fd, *text + used, FILE_MAX - used);
		used += n > 0 ? (size_t)n : 0;
	}
	if (n < 0)
		urd_build_fail(b, path, "cannot read: %s", strerror(errno));
	else if (used == FILE_MAX)
		urd_build_fail(b, path, "is larger than 4MiB, that is no configuration");
	else if (memchr(*text, '\0', used))
		urd_build_fail(b, path, "has a zero byte in it, that is no configuration");
	else
		ret = 0;
	if (ret)
		free(*text);
	else
		memcpy(*text + used, tail, sizeof(tail));
out_close:
	if (fd >= 0)
		close(fd);
	return ret;
}

static int lines_count(const char *text)
{
	int n = 0;

	for (; (text = strchr(text, '\n')); text++)
		n++;
	return n - 1; /* the last belongs to the sentinel */
}

/* Lists outside of pools are whole only now. */
static int root_commit(cfg_t *cfg)
{
	int ret = 0;

	for (u32 i = 0; !ret && i < urd_keys_nr; i++) {
		if (urd_keys[i].section == URD_SECTION_ROOT && key_is_list(&urd_keys[i]))
			ret = list_commit(cfg, &urd_keys[i], NULL);
	}
	return ret;
}

int urd_build_file(struct urd_build *b, const char *path)
{
	char *text = NULL;
	FILE *f;
	cfg_t *cfg;
	int ret = file_read(b, path, &text);

	if (ret)
		return ret;
	parsing.build = b;
	parsing.path = path;
	parsing.lines = lines_count(text);
	parsing.ret = 0;
	f = fmemopen(text, strlen(text), "r");
	urd_assert(f != NULL);
	cfg = parser_new();
	cfg->filename = strdup(path);
	ret = cfg_parse_fp(cfg, f);
	if (!parsing.ret && ret != CFG_SUCCESS)
		parsing.ret = urd_build_fail(b, path, "cannot be parsed");
	if (!parsing.ret && !cfg_size(cfg, SENTINEL))
		parsing.ret = urd_build_fail(b, path, "the file ends within a comment, close it");
	ret = parsing.ret;
	if (!ret)
		ret = root_commit(cfg);
	cfg_free(cfg);
	fclose(f);
	free(text);
	parsing.build = NULL;
	return ret;
}
