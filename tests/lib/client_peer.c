// SPDX-License-Identifier: MIT
/*
 * A C client and the other end of its connection, in one process.
 */
#include "lib/client_peer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct urd_client *client;
int peer;
u8 frame[FRAME_MAX];

void client_open(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/urd-client-XXXXXX";
	char address[128];
	int listener;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", dir);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	cr_assert_eq(bind(listener, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	snprintf(address, sizeof(address), "unix:%s", sa.sun_path);
	cr_assert_eq(urd_client_open(address, &client), 0);
	peer = accept(listener, NULL, NULL);
	cr_assert_geq(peer, 0);
	close(listener);
	unlink(sa.sun_path);
	rmdir(dir);
	cr_assert(fcntl(urd_client_fd(client), F_GETFD) & FD_CLOEXEC);
	cr_assert(fcntl(urd_client_fd(client), F_GETFL) & O_NONBLOCK);
}

void client_shut(void)
{
	urd_client_close(client);
	close(peer);
}

void peer_read(u8 *p, size_t len)
{
	struct pollfd pfd = { .fd = peer, .events = POLLIN };
	ssize_t n;

	while (len) {
		cr_assert_eq(poll(&pfd, 1, PATIENCE_MS), 1, "nothing came");
		n = read(peer, p, len);
		cr_assert_gt(n, 0);
		p += n;
		len -= (size_t)n;
	}
}

struct urd_msg frame_get(void)
{
	struct urd_msg m;
	u32 len;

	peer_read(frame, 4);
	len = get_be32(frame);
	cr_assert(len && len <= sizeof(frame));
	peer_read(frame, len);
	cr_assert_eq(urd_rpc_parse(frame, len, &m), 0);
	return m;
}

void peer_write(const void *p, size_t len)
{
	cr_assert_eq(write(peer, p, len), (ssize_t)len);
}

size_t answer_make(u8 *p, u32 msgid, const char *body, size_t len)
{
	put_be32(p, (u32)(7 + len));
	memcpy(p + 4, "\x94\x01\xce", 3);
	put_be32(p + 7, msgid);
	memcpy(p + 11, body, len);
	return 11 + len;
}

void answer_put(u32 msgid, const char *body, size_t len)
{
	u8 buf[512];

	peer_write(buf, answer_make(buf, msgid, body, len));
}

u32 send_one(const char *method)
{
	struct urd_answer a;
	u32 msgid;

	cr_assert_eq(urd_client_send(client, method, "\x01", 1, NULL, &msgid), 0);
	cr_assert_eq(urd_client_turn(client, &a), 0);
	return msgid;
}
