// SPDX-License-Identifier: MIT
/*
 * A configuration from all its sources, later ones winning: defaults, the file,
 * a command given directly, -o.  Then what only the whole can tell: pools
 * without a command, minimum above maximum, nowhere to listen.
 */
#include "cli/config.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/config_build.h"
#include "cli/suggest.h"
#include "ring/spawn.h"

/* Elements that one -o may list. */
#define OPTION_ITEMS_MAX 1024

/* --- -o KEY=VALUE --------------------------------------------------------------- */

/* What is there already of a list that an earlier -o began. */
static u32 list_begun(struct urd_build *b, const struct urd_key *key, struct urd_pool_build *pool,
		      const char **items)
{
	const char *at = pool ? pool->at[urd_key_index(key)] : b->at[urd_key_index(key)];
	const char *const *list;
	u32 n = 0;

	if (!at || strncmp(at, "-o ", 3))
		return 0; /* the file's list gives way */
	if (key->type == URD_KEY_LISTEN)
		list = b->listen_text;
	else
		list = *(const char *const *const *)(void *)((u8 *)&pool->conf + key->offset);
	while (list[n] && n < OPTION_ITEMS_MAX) {
		items[n] = list[n];
		n++;
	}
	return n;
}

/* Split at commas; "\," is a comma. Cuts @text up. */
static u32 items_split(char *text, const char **items, u32 n)
{
	char *to = text;

	items[n++] = text;
	for (; *text; text++) {
		if (text[0] == '\\' && text[1] == ',') {
			*to++ = *++text;
		} else if (*text == ',' && n < OPTION_ITEMS_MAX) {
			*to++ = '\0';
			items[n++] = to;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
	return n;
}

static int option_set(struct urd_build *b, const struct urd_key *key, struct urd_pool_build *pool,
		      const char *value, const char *where)
{
	const char **items;
	char *text;
	u32 n;

	if (key->type != URD_KEY_LIST && key->type != URD_KEY_LISTEN)
		return urd_build_set(b, key, pool, &value, 1, where);
	items = urd_build_alloc(b, (OPTION_ITEMS_MAX + 1) * sizeof(*items));
	text = urd_build_alloc(b, strlen(value) + 1);
	memcpy(text, value, strlen(value));
	n = list_begun(b, key, pool, items);
	n = items_split(text, items, n);
	if (key->type == URD_KEY_LISTEN)
		b->listen_text = items;
	return urd_build_set(b, key, pool, items, n, where);
}

static int option_pool_unknown(struct urd_build *b, const char *name, const char *where)
{
	struct urd_suggest s;

	urd_suggest_init(&s, name);
	for (u32 i = 0; i < b->pools_nr; i++)
		urd_suggest_try(&s, b->pools[i].conf.name);
	if (s.best)
		return urd_build_fail(b, where, "no pool \"%s\", did you mean \"%s\"?", name,
				      s.best);
	return urd_build_fail(b, where,
			      "no pool \"%s\", define it in the file or set "
			      "pool.%s.command as well",
			      name, name);
}

static int option_unknown(struct urd_build *b, enum urd_section section, const char *name,
			  const char *where)
{
	char advice[192];

	urd_key_advise(section, name, advice, sizeof(advice));
	return urd_build_fail(b, where, "unknown key \"%s\", %s", name, advice);
}

/* -o pool.NAME.KEY=VALUE; @path is "NAME.KEY" and is cut up */
static int option_pool(struct urd_build *b, char *path, const char *value, const char *where,
		       bool commands)
{
	struct urd_pool_build *pool;
	const struct urd_key *key;
	char *name = strrchr(path, '.');
	int ret;

	if (!name || name == path)
		return commands ? 0 :
				  urd_build_fail(b, where,
						 "names no pool and key, write "
						 "pool.NAME.KEY=VALUE");
	/* a key of another program may have a dot in it; a pool's name has none */
	name = strchr(path, '.');
	*name++ = '\0';
	key = urd_key_find(URD_SECTION_POOL, name);
	if (commands != (key && !strcmp(name, "command")))
		return 0;
	pool = urd_build_pool(b, path);
	if (!pool && commands) {
		ret = urd_build_pool_add(b, path, where, &pool);
		if (ret)
			return ret;
	}
	if (!pool)
		return option_pool_unknown(b, path, where);
	if (!key)
		return option_unknown(b, URD_SECTION_POOL, name, where);
	return option_set(b, key, pool, value, where);
}

int urd_build_option(struct urd_build *b, const char *set, bool commands)
{
	const char *equals = strchr(set, '=');
	const char *where;
	const struct urd_key *key;
	enum urd_section section = URD_SECTION_ROOT;
	char path[192];
	char *name = path;

	if (!equals || equals == set || (size_t)(equals - set) >= sizeof(path))
		return urd_build_fail(b, urd_build_str(b, "-o %.100s", set),
				      "is not KEY=VALUE, write it like -o pool.default.workers=4");
	snprintf(path, sizeof(path), "%.*s", (int)(equals - set), set);
	where = urd_build_str(b, "-o %s", path);
	if (!strncmp(path, "pool.", 5))
		return option_pool(b, path + 5, equals + 1, where, commands);
	if (commands)
		return 0;
	if (!strncmp(path, "log.", 4)) {
		section = URD_SECTION_LOG;
		name = path + 4;
	}
	key = urd_key_find(section, name);
	if (!key)
		return option_unknown(b, section, name, where);
	return option_set(b, key, NULL, equals + 1, where);
}

/* --- the whole ---------------------------------------------------------------------- */

static u32 cpus_count(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return (u32)urd_max(sysconf(_SC_NPROCESSORS_ONLN), 1L);
	return (u32)CPU_COUNT(&set);
}

/* Where a pair of keys is to be mended: where the later one of them stands. */
static const char *where_pair(const struct urd_pool_build *p, const char *low, const char *high)
{
	const char *h = p->at[urd_key_index(urd_key_find(URD_SECTION_POOL, high))];
	const char *l = p->at[urd_key_index(urd_key_find(URD_SECTION_POOL, low))];

	if (h && (!l || !strncmp(h, "-o ", 3) || strncmp(l, "-o ", 3)))
		return h;
	return l ? l : p->where;
}

/* Names of users and groups, which only make sense together. */
static int pool_finish_ids(struct urd_build *b, const struct urd_pool_build *p)
{
	struct urd_spawn_spec spec;
	const char *where;
	bool group;
	char why[160];

	if (!urd_spawn_conf(&spec, &p->conf, why, sizeof(why)))
		return 0;
	group = !strncmp(why, "group: ", 7);
	where = p->at[urd_key_index(urd_key_find(URD_SECTION_POOL, group ? "group" : "user"))];
	return urd_build_fail(b, where ? where : p->where, "%s", why);
}

static int pool_finish(struct urd_build *b, struct urd_pool_build *p)
{
	struct urd_pool_conf *c = &p->conf;
	u32 cpus = urd_min(cpus_count(), 4096u);

	if (!c->argv)
		return urd_build_fail(b, p->where,
				      "pool \"%s\" has no command, add one like command = "
				      "{ \"php\", \"worker.php\" }",
				      c->name);
	if (!c->min_workers)
		c->min_workers = c->max_workers ? urd_min(cpus, c->max_workers) : cpus;
	if (!c->max_workers)
		c->max_workers = urd_max(cpus, c->min_workers);
	if (c->min_workers > c->max_workers)
		return urd_build_fail(b, where_pair(p, "min_workers", "max_workers"),
				      "min_workers (%u) is greater than max_workers (%u) of pool "
				      "\"%s\", change one",
				      c->min_workers, c->max_workers, c->name);
	if (c->backoff_min_ns > c->backoff_max_ns)
		return urd_build_fail(
			b, where_pair(p, "backoff_min", "backoff_max"),
			"backoff_min is greater than backoff_max of pool \"%s\", change "
			"one",
			c->name);
	return pool_finish_ids(b, p);
}

/* The admin's address goes behind the others. */
static int admin_finish(struct urd_build *b)
{
	const char *where = b->at[urd_key_index(urd_key_find(URD_SECTION_ROOT, "admin"))];
	struct urd_config_values *v = &b->config->values;
	u32 n = v->conf.listen_nr;
	struct urd_listen_conf *list;

	v->conf.drain_timeout_ns = v->drain_timeout_ns;
	if (!v->admin.address)
		return 0;
	if (n == URD_LISTEN_MAX)
		return urd_build_fail(b, where,
				      "with admin there are more than %u addresses, drop one",
				      URD_LISTEN_MAX);
	list = urd_build_alloc(b, (n + 1) * sizeof(*list));
	for (u32 i = 0; i < n; i++) {
		list[i] = v->conf.listen[i];
		if (!strcmp(list[i].address, v->admin.address))
			return urd_build_fail(b, where,
					      "\"%s\" is an address of listen, choose another "
					      "path for admin",
					      v->admin.address);
	}
	list[n] = v->admin;
	v->conf.listen = list;
	v->conf.listen_nr = n + 1;
	return 0;
}

int urd_build_finish(struct urd_build *b)
{
	struct urd_conf *conf = &b->config->values.conf;
	struct urd_pool_conf *pools = urd_build_alloc(b, (b->pools_nr + 1) * sizeof(*pools));
	int ret;

	for (u32 i = 0; i < b->pools_nr; i++) {
		ret = pool_finish(b, &b->pools[i]);
		if (ret)
			return ret;
		pools[i] = b->pools[i].conf;
	}
	conf->pools = pools;
	conf->pools_nr = b->pools_nr;
	return admin_finish(b);
}

static int build_all(struct urd_build *b, const struct urd_config_args *args)
{
	const struct urd_key *listen = urd_key_find(URD_SECTION_ROOT, "listen");
	const struct urd_key *command = urd_key_find(URD_SECTION_POOL, "command");
	struct urd_pool_build *pool = NULL;
	u32 n = 0;
	int ret = 0;

	if (args->file)
		ret = urd_build_file(b, args->file);
	if (!ret && args->command) {
		pool = urd_build_pool(b, "default");
		if (!pool)
			ret = urd_build_pool_add(b, "default", "command line", &pool);
		while (args->command[n])
			n++;
		if (!ret)
			ret = urd_build_set(b, command, pool, args->command, n, "command line");
	}
	for (u32 i = 0; !ret && i < args->sets_nr; i++)
		ret = urd_build_option(b, args->sets[i], true);
	for (u32 i = 0; !ret && i < args->sets_nr; i++)
		ret = urd_build_option(b, args->sets[i], false);
	if (!ret && !b->pools_nr)
		ret = urd_build_fail(b, args->file ? args->file : "command line",
				     "no pool, write pool \"NAME\" { command = { ... } } or give a "
				     "command after --");
	if (!ret && args->listen && !b->config->values.conf.listen_nr)
		ret = urd_build_set(b, listen, NULL, &args->listen, 1, "default");
	return ret ? ret : urd_build_finish(b);
}

int urd_config_load(const struct urd_config_args *args, struct urd_config **config, char *err,
		    size_t err_len)
{
	struct urd_build b = { .err = err, .err_len = err_len };
	int ret;

	b.config = calloc(1, sizeof(*b.config));
	b.pools = calloc(URD_POOLS_MAX, sizeof(*b.pools));
	if (!b.config || !b.pools) {
		snprintf(err, err_len, "out of memory");
		ret = -ENOMEM;
		goto out_free;
	}
	b.config->values.conf = (struct urd_conf)URD_CONF_INIT;
	/* a daemon tells more than a library */
	b.config->values.conf.log_level = URD_LOG_INFO;
	b.config->values.drain_timeout_ns = 30 * URD_SEC;
	ret = build_all(&b, args);
	if (!ret) {
		*config = b.config;
		b.config = NULL;
	}
out_free:
	urd_config_free(b.config);
	free(b.pools);
	return ret;
}

void urd_config_free(struct urd_config *config)
{
	if (!config)
		return;
	while (config->mem) {
		struct config_mem *next = config->mem->next;

		free(config->mem);
		config->mem = next;
	}
	free(config);
}
