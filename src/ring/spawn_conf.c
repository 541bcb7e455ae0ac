// SPDX-License-Identifier: MIT
/*
 * What the configuration of a pool asks of its processes, put into the numbers
 * that a child needs: names of users and groups become ids here, at start-up,
 * because a child that shares our memory cannot ask a name service.
 */
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "ring/spawn.h"

/* Of a line in the database of users, or of groups with many members. */
#define LINE_MAX_BYTES (64u << 10)

static int URD_PRINTF(3, 4) refuse(char *err, size_t len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, len, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* A name that is a number. */
static bool id_parse(const char *text, u32 *id)
{
	u64 v = 0;

	if (!*text || strlen(text) > 10)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		v = v * 10 + (u64)(*text - '0');
	}
	*id = (u32)v;
	return v < UINT32_MAX; /* the last one means "none" to the kernel */
}

/* Fills in uid and, if the user is in the database, gid, name and home. */
static int user_find(struct urd_spawn_spec *spec, const char *text, char *err, size_t len)
{
	char line[LINE_MAX_BYTES];
	struct passwd pw, *found = NULL;
	bool number;
	int ret;

	ret = getpwnam_r(text, &pw, line, sizeof(line), &found);
	number = !found && id_parse(text, &spec->uid);
	if (number)
		ret = getpwuid_r(spec->uid, &pw, line, sizeof(line), &found);
	if (found) {
		if (strlen(pw.pw_name) >= sizeof(spec->user) ||
		    strlen(pw.pw_dir) >= sizeof(spec->home))
			return refuse(err, len, "user: name or home of \"%s\" is too long", text);
		memcpy(spec->user, pw.pw_name, strlen(pw.pw_name) + 1);
		memcpy(spec->home, pw.pw_dir, strlen(pw.pw_dir) + 1);
		spec->uid = pw.pw_uid;
		spec->gid = pw.pw_gid;
		return 0;
	}
	if (number)
		return 0;
	/* these are other ways of the databases to say that there is none */
	if (ret && ret != ENOENT && ret != ESRCH && ret != EBADF && ret != EPERM)
		return refuse(err, len, "user: cannot look up \"%s\": %s", text, strerror(ret));
	return refuse(err, len, "user: there is no user \"%s\", write a user's name or number",
		      text);
}

static int group_find(const char *text, u32 *gid, char *err, size_t len)
{
	char line[LINE_MAX_BYTES];
	struct group gr, *found = NULL;
	int ret = getgrnam_r(text, &gr, line, sizeof(line), &found);

	if (found) {
		*gid = gr.gr_gid;
		return 0;
	}
	if (id_parse(text, gid))
		return 0;
	if (ret && ret != ENOENT && ret != ESRCH && ret != EBADF && ret != EPERM)
		return refuse(err, len, "group: cannot look up \"%s\": %s", text, strerror(ret));
	return refuse(err, len, "group: there is no group \"%s\", write a group's name or number",
		      text);
}

static int conf_ids(struct urd_spawn_spec *spec, const struct urd_pool_conf *conf, char *err,
		    size_t len)
{
	int nr = URD_SPAWN_GROUPS_MAX;
	int ret = 0;

	spec->uid = geteuid();
	if (conf->user)
		ret = user_find(spec, conf->user, err, len);
	if (!ret && conf->group)
		ret = group_find(conf->group, &spec->gid, err, len);
	if (ret)
		return ret;
	if (conf->user && !conf->group && !spec->user[0])
		return refuse(err, len,
			      "user: \"%s\" is not in the database of users, set group too",
			      conf->user);
	spec->groups[0] = spec->gid;
	spec->groups_nr = 1;
	if (spec->user[0]) {
		if (getgrouplist(spec->user, spec->gid, spec->groups, &nr) < 0)
			return refuse(err, len, "user: \"%s\" is in %d groups, at most %u work",
				      conf->user, nr, URD_SPAWN_GROUPS_MAX);
		spec->groups_nr = (u32)nr;
	}
	/* somebody who is nobody special may say who he is */
	if (geteuid() == 0 || spec->uid != geteuid() || spec->gid != getegid())
		spec->set |= URD_SPAWN_IDS;
	return 0;
}

static void conf_limit(struct urd_spawn_spec *spec, enum urd_spawn_limit which, u64 value)
{
	if (value == URD_RLIMIT_UNSET)
		return;
	spec->limits[which].rlim_cur = value == URD_RLIMIT_NONE ? RLIM_INFINITY : value;
	spec->limits[which].rlim_max = spec->limits[which].rlim_cur;
	spec->limits_set |= 1u << which;
}

static void conf_limits(struct urd_spawn_spec *spec, const struct urd_pool_conf *conf)
{
	struct rlimit *cpu = &spec->limits[URD_SPAWN_CPU];
	struct rlimit have;
	u64 cpu_s = conf->rlimit_cpu_ns;

	if (cpu_s < URD_RLIMIT_UNSET)
		cpu_s = cpu_s / NSEC_PER_SEC + (cpu_s % NSEC_PER_SEC != 0);
	conf_limit(spec, URD_SPAWN_NOFILE, conf->rlimit_nofile);
	conf_limit(spec, URD_SPAWN_CORE, conf->rlimit_core);
	conf_limit(spec, URD_SPAWN_AS, conf->rlimit_as);
	conf_limit(spec, URD_SPAWN_CPU, cpu_s);
	conf_limit(spec, URD_SPAWN_NPROC, conf->rlimit_nproc);
	/* a second between the signal that tells why and the one that kills, if we may */
	if (cpu_s < URD_RLIMIT_UNSET && !getrlimit(RLIMIT_CPU, &have) &&
	    cpu->rlim_max < have.rlim_max)
		cpu->rlim_max++;
	/* urd raises its own for itself: select() in a worker is none of its concern */
	if (conf->rlimit_nofile == URD_RLIMIT_UNSET &&
	    !getrlimit(RLIMIT_NOFILE, &spec->limits[URD_SPAWN_NOFILE]))
		spec->limits_set |= 1u << URD_SPAWN_NOFILE;
}

int urd_spawn_conf(struct urd_spawn_spec *spec, const struct urd_pool_conf *conf, char *err,
		   size_t len)
{
	spec->set = 0;
	spec->limits_set = 0;
	spec->user[0] = '\0';
	spec->home[0] = '\0';
	conf_limits(spec, conf);
	if (conf->umask != URD_UNSET) {
		spec->umask = (mode_t)conf->umask;
		spec->set |= URD_SPAWN_UMASK;
	}
	if (conf->nice != URD_UNSET) {
		spec->nice = conf->nice;
		spec->set |= URD_SPAWN_NICE;
	}
	if (conf->oom_score_adj != URD_UNSET) {
		spec->oom_score_adj = conf->oom_score_adj;
		spec->set |= URD_SPAWN_OOM;
	}
	if (conf->no_new_privs == URD_UNSET ? conf->user != NULL : conf->no_new_privs != 0)
		spec->set |= URD_SPAWN_NO_NEW_PRIVS;
	return conf->user || conf->group ? conf_ids(spec, conf, err, len) : 0;
}
