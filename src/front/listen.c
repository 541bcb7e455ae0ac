// SPDX-License-Identifier: MIT
/*
 * Listeners: binding addresses and accepting.  A socket file that a live server
 * answers on is never taken away; one that nobody answers on is.
 */
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "front/front.h"

/* Connections that may wait to be accepted. */
#define LISTEN_BACKLOG 1024
/* After an accept failed for want of descriptors or memory, ns. */
#define LISTEN_RETRY_NS (100 * NSEC_PER_MSEC)
/* Where sockets are by default. */
#define LISTEN_HOME "/run/urd"
/* Of a Unix socket, unless configured. */
#define LISTEN_MODE 0660
#define LISTEN_MODE_ADMIN 0600

static int URD_PRINTF(4, 5) fail(char *err, size_t len, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, len, fmt, ap);
	va_end(ap);
	return ret;
}

/*
 * Has the process on the other side ended? The ring of one that was killed is torn
 * down a little later than itself, and its listener takes connections until then.
 */
static bool peer_is_dead(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0 &&
	       kill(peer.pid, 0) < 0 && errno == ESRCH;
}

/* Does somebody listen there? A refused connection says no, like a missing file. */
static bool unix_is_live(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool live;

	if (fd < 0)
		return true; /* not known: better leave it alone */
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0)
		live = !peer_is_dead(fd);
	else
		live = errno != ECONNREFUSED && errno != ENOENT;
	close(fd);
	return live;
}

static int unix_clear(const struct sockaddr_un *sa, char *err, size_t len)
{
	struct stat st;

	if (lstat(sa->sun_path, &st) < 0)
		return errno == ENOENT ? 0 :
					 fail(err, len, -errno, "listen: %s: %s", sa->sun_path,
					      strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return fail(
			err, len, -EEXIST,
			"listen: %s is there and is no socket; remove it or choose another path",
			sa->sun_path);
	if (unix_is_live(sa))
		return fail(
			err, len, -EADDRINUSE,
			"listen: %s is in use by a running server; stop it or choose another path",
			sa->sun_path);
	(void)unlink(sa->sun_path);
	return 0;
}

static int unix_bind(struct urd_listener *l, const struct urd_listen_conf *conf, char *err,
		     size_t len)
{
	const char *path = conf->address + 5;
	mode_t mode = conf->admin ? LISTEN_MODE_ADMIN : LISTEN_MODE;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct stat st;
	int ret;

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		return fail(err, len, -ENAMETOOLONG,
			    "listen: the path must have 1 to %zu characters: %s",
			    sizeof(sa.sun_path) - 1, path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	if (!strncmp(path, LISTEN_HOME "/", sizeof(LISTEN_HOME)))
		(void)mkdir(LISTEN_HOME, 0755); /* our own place, if we may make it */
	ret = unix_clear(&sa, err, len);
	if (ret)
		return ret;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return fail(err, len, -errno, "listen: socket: %s", strerror(errno));
	/* nobody but us until mode and owner are right */
	(void)fchmod(l->fd, 0600);
	if (bind(l->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return fail(err, len, -errno, "listen: can't bind %s: %s%s", path, strerror(errno),
			    errno == ENOENT ? "; make the folder first" : "");
	memcpy(l->path, sa.sun_path, sizeof(l->path));
	if (stat(path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	if ((conf->uid != (uid_t)-1 || conf->gid != (gid_t)-1) &&
	    chown(path, conf->uid, conf->gid) < 0)
		return fail(err, len, -errno, "listen: can't change the owner of %s: %s", path,
			    strerror(errno));
	if (chmod(path, conf->mode ? conf->mode : mode) < 0)
		return fail(err, len, -errno, "listen: can't change the mode of %s: %s", path,
			    strerror(errno));
	return 0;
}

static int tcp_bind_one(struct urd_listener *l, const struct addrinfo *ai)
{
	int one = 1;

	l->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return -errno;
	(void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l->fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return 0;
	one = -errno;
	close(l->fd);
	l->fd = -1;
	return one;
}

static int tcp_bind(struct urd_listener *l, const struct urd_listen_conf *conf, char *err,
		    size_t len)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	const char *addr = conf->address + 4;
	const char *colon = strrchr(addr, ':');
	struct addrinfo *list, *ai;
	char host[256];
	int ret;

	if (!colon || !colon[1] || (size_t)(colon - addr) >= sizeof(host))
		return fail(err, len, -EINVAL, "listen: %s: write tcp:HOST:PORT", conf->address);
	snprintf(host, sizeof(host), "%.*s", (int)(colon - addr), addr);
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		memmove(host, host + 1, strlen(host));
		host[strlen(host) - 1] = 0;
	}
	ret = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &list);
	if (ret)
		return fail(err, len, -EINVAL, "listen: %s: %s", conf->address, gai_strerror(ret));
	ret = -EADDRNOTAVAIL;
	for (ai = list; ai && ret; ai = ai->ai_next)
		ret = tcp_bind_one(l, ai);
	freeaddrinfo(list);
	l->is_tcp = true;
	if (ret)
		return fail(err, len, ret, "listen: can't bind %s: %s", conf->address,
			    strerror(-ret));
	return 0;
}

static int listener_init(struct urd_listener *l, const struct urd_listen_conf *conf, char *err,
			 size_t len)
{
	int ret;

	l->admin = conf->admin;
	if (!strncmp(conf->address, "unix:", 5))
		ret = unix_bind(l, conf, err, len);
	else if (conf->admin)
		ret = fail(err, len, -EINVAL, "admin: %s: write unix:/PATH", conf->address);
	else if (!strncmp(conf->address, "tcp:", 4))
		ret = tcp_bind(l, conf, err, len);
	else
		ret = fail(err, len, -EINVAL, "listen: %s: write unix:/PATH or tcp:HOST:PORT",
			   conf->address);
	if (!ret && listen(l->fd, LISTEN_BACKLOG) < 0)
		ret = fail(err, len, -errno, "listen: %s: %s", conf->address, strerror(errno));
	return ret;
}

static void listener_close(struct urd_listener *l)
{
	struct stat st;

	if (l->fd < 0)
		return;
	/* only what is still ours: another server may have taken the path over */
	if (l->path[0] && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		(void)unlink(l->path);
	l->path[0] = 0;
	close(l->fd);
	l->fd = -1;
}

int listeners_init(struct urd_front *front, const struct urd_conf *conf, char *err, size_t err_len)
{
	int ret = 0;

	front->listeners = calloc(conf->listen_nr + 1u, sizeof(*front->listeners));
	if (!front->listeners)
		return -ENOMEM;
	for (u32 i = 0; i < conf->listen_nr && !ret; i++) {
		struct urd_listener *l = &front->listeners[i];

		l->front = front;
		l->fd = -1;
		l->timer.kind = URD_TIMER_LISTENER;
		urd_op_init(front->core->ring, &l->op, URD_OP_LISTENER, 0);
		front->listeners_nr++;
		ret = listener_init(l, &conf->listen[i], err, err_len);
	}
	if (ret)
		for (u32 i = 0; i < front->listeners_nr; i++)
			listener_close(&front->listeners[i]);
	return ret;
}

void urd_front_start(struct urd_front *front)
{
	for (u32 i = 0; i < front->listeners_nr; i++)
		urd_op_accept(front->core->ring, &front->listeners[i].op, front->listeners[i].fd);
}

void listeners_stop(struct urd_front *front, bool admins)
{
	for (u32 i = 0; i < front->listeners_nr; i++) {
		struct urd_listener *l = &front->listeners[i];

		if (l->admin && !admins)
			continue;
		urd_timer_clear(&front->core->heap, &l->timer);
		if (urd_op_is_idle(&l->op))
			listener_close(l);
		else
			urd_op_cancel(front->core->ring, &l->op);
	}
}

void urd_front_stop(struct urd_front *front)
{
	listeners_stop(front, false);
}

void listener_accepted(struct urd_listener *l, const struct urd_done *done)
{
	struct urd_front *front = l->front;
	int one = 1;

	if (done->res >= 0) {
		if (l->is_tcp)
			(void)setsockopt(done->res, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		conn_open(front, done->res, l->admin);
	}
	if (done->more)
		return;
	if (l->op.cancelling) {
		listener_close(l);
		return;
	}
	/* out of descriptors or memory: at once would fail again, and again */
	if (done->res < 0 && done->res != -ECONNABORTED && done->res != -EINTR) {
		pr_warn(front->core->log, NULL, "accept failed: %s; trying again in 100 ms",
			strerror(-done->res));
		urd_timer_set(&front->core->heap, &l->timer, front->core->now_ns + LISTEN_RETRY_NS);
		return;
	}
	urd_op_accept(front->core->ring, &l->op, l->fd);
}

bool urd_front_timer(struct urd_front *front, struct urd_timer *t)
{
	struct urd_listener *l;

	if (t->kind != URD_TIMER_LISTENER)
		return false;
	l = container_of(t, struct urd_listener, timer);
	urd_op_accept(front->core->ring, &l->op, l->fd);
	return true;
}
