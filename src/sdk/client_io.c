// SPDX-License-Identifier: MIT
/*
 * The C client's contact with the outside: addresses, connecting, writing.
 * Connecting blocks; everything after it does not.
 */
#include "sdk/client_impl.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Longest host name that DNS knows, and brackets. */
#define HOST_MAX 256u

/* A connect(2) that a signal interrupted goes on; wait for its outcome. */
static int socket_connect(int fd, const struct sockaddr *sa, socklen_t sa_len)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int error = 0;

	if (!connect(fd, sa, sa_len))
		return 0;
	if (errno != EINTR)
		return -errno;
	while (poll(&p, 1, -1) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

/* Return: a connected descriptor or negative errno. */
static int socket_open(int family, const struct sockaddr *sa, socklen_t sa_len)
{
	int flags;
	int ret;
	int fd;

	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	ret = socket_connect(fd, sa, sa_len);
	if (ret)
		goto out_close;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		ret = -errno;
		goto out_close;
	}
	return fd;

out_close:
	close(fd);
	return ret;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (!len)
		return -EINVAL;
	if (len >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, len);
	return socket_open(AF_UNIX, (const struct sockaddr *)&sa, sizeof(sa));
}

static int gai_errno(int code)
{
	switch (code) {
	case EAI_SYSTEM:
		return -errno;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_AGAIN:
		return -EAGAIN;
	case EAI_SERVICE:
		return -EINVAL;
	default:
		return -EHOSTUNREACH;
	}
}

static int connect_tcp(const char *text)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	const char *port = strrchr(text, ':');
	struct addrinfo *list;
	struct addrinfo *ai;
	char host[HOST_MAX];
	const int one = 1;
	size_t len;
	int ret;

	if (!port || port == text || !port[1])
		return -EINVAL;
	len = (size_t)(port - text);
	if (text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (!len || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	ret = getaddrinfo(host, port + 1, &hints, &list);
	if (ret)
		return gai_errno(ret);
	ret = -EHOSTUNREACH;
	for (ai = list; ai; ai = ai->ai_next) {
		ret = socket_open(ai->ai_family, ai->ai_addr, ai->ai_addrlen);
		if (ret >= 0)
			break;
	}
	freeaddrinfo(list);
	/* Small requests should not wait for the acknowledgement of earlier ones. */
	if (ret >= 0)
		(void)setsockopt(ret, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return ret;
}

int urd_client_connect(const char *address, int *fd)
{
	int ret;

	if (!strncmp(address, "unix:", 5))
		ret = connect_unix(address + 5);
	else if (address[0] == '/' || !strncmp(address, "./", 2))
		ret = connect_unix(address);
	else if (!strncmp(address, "tcp:", 4))
		ret = connect_tcp(address + 4);
	else
		ret = -EINVAL;
	if (ret < 0)
		return ret;
	*fd = ret;
	return 0;
}

void urd_client_flush(struct urd_client *c)
{
	size_t len;
	ssize_t n;

	while (!c->tx_broken && (len = urd_stream_len(&c->tx))) {
		n = send(c->fd, c->tx.p + c->tx.head, len, MSG_NOSIGNAL);
		if (n >= 0) {
			c->tx.head += (size_t)n;
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR) {
			/* The peer may have answered before it left: reading goes on. */
			c->tx_broken = errno == ECONNRESET ? -EPIPE : -errno;
			urd_stream_fini(&c->tx);
		}
	}
	urd_stream_trim(&c->tx);
}
