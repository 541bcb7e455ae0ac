/* SPDX-License-Identifier: MIT */
/*
 * Tests of the C client play the daemon byte by byte: one client, and the other
 * end of its connection.  Each test has a process of its own, so there is one.
 */
#ifndef URD_TESTS_CLIENT_PEER_H
#define URD_TESTS_CLIENT_PEER_H

#include <urd/client.h>

#include "base/base.h"
#include "wire/rpc.h"

#include <criterion/criterion.h>

#define PATIENCE_MS 10000
#define FRAME_MAX (1u << 16)

extern struct urd_client *client;
extern int peer;	    /* the daemon's end */
extern u8 frame[FRAME_MAX]; /* what frame_get() has read */

/** client_open - a client, connected to us */
void client_open(void);

/** client_shut - close both ends */
void client_shut(void);

/** peer_read - read so many bytes of the client */
void peer_read(u8 *p, size_t len);

/** frame_get - the next message of the client */
struct urd_msg frame_get(void);

/** peer_write - write bytes to the client */
void peer_write(const void *p, size_t len);

/** answer_make - the bytes of an answer: @body is error and result; Return: how many */
size_t answer_make(u8 *p, u32 msgid, const char *body, size_t len);

/** answer_put - write an answer to the client */
void answer_put(u32 msgid, const char *body, size_t len);

/** Answer @msgid with the bytes of a literal: error and result. */
#define ANSWER(msgid, body) answer_put(msgid, body, sizeof(body) - 1)

/** send_one - the client sends a request without options; Return: its number */
u32 send_one(const char *method);

#endif /* URD_TESTS_CLIENT_PEER_H */
