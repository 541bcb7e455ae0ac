/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the C client share: client.c (requests and answers),
 * client_call.c (waiting for them) and client_io.c (connecting, moving bytes).
 * Nobody else includes this.
 */
#ifndef URD_CLIENT_IMPL_H
#define URD_CLIENT_IMPL_H

#include <urd/client.h>

#include "base/base.h"
#include "base/list.h"
#include "sdk/stream.h"

/* Bytes that may wait to be written. */
#define TX_MAX ((size_t)64 << 20)
/*
 * Largest answer accepted, in bytes.  The daemon's limit is a matter of its
 * configuration and may be twice the default at most.
 */
#define ANSWER_MAX (2 * URD_RESPONSE_MAX)
/* Error texts are cut to this, in bytes with the NUL. */
#define TEXT_MAX 1024u
/* Chunks that may be on their way when a stream begins: docs/client-protocol.md. */
#define STREAM_CREDIT 16u
/* A number is an index of so many bits and above them a generation. */
#define INDEX_BITS 20u
#define INDEX_MASK ((1u << INDEX_BITS) - 1)

/** enum urd_want - who waits for an answer */
enum urd_want {
	WANT_FREE,   /* nothing outstanding under this index */
	WANT_ANSWER, /* the user */
	WANT_DROP,   /* nobody any more; the answer still comes */
};

/**
 * struct urd_slot - a request number in use, or free
 * @taken: chunks handed out for which nothing was granted yet
 * @stream, @progress, @manual: what it was sent with
 */
struct urd_slot {
	u32 msgid;
	u32 next_free;
	enum urd_want want;
	u32 taken;
	bool stream;
	bool progress;
	bool manual;
};

/** struct urd_kept - an answer, or a part of one, that came while another was waited for */
struct urd_kept {
	struct urd_list node;
	u32 len;
	u8 frame[];
};

/**
 * struct urd_client - a connection
 * @broken: negative errno once nothing can be read any more
 * @tx_broken: negative errno once nothing can be written any more
 * @slots: numbers, @slots_nr in use or on the free list
 * @free_slot: first of the free list, slots_nr if it is empty
 * @kept: answers not handed out yet
 * @current: the kept answer that the user looks at, or NULL
 */
struct urd_client {
	int fd;
	int broken;
	int tx_broken;
	struct urd_stream tx;
	struct urd_stream rx;
	struct urd_slot *slots;
	u32 slots_nr;
	u32 slots_cap;
	u32 free_slot;
	struct urd_list kept;
	struct urd_kept *current;
	char text[TEXT_MAX];
};

/** urd_client_connect - connected, non-blocking socket in @fd; 0 or negative errno */
int urd_client_connect(const char *address, int *fd) URD_MUST_CHECK;

/** urd_client_flush - write what can be written now; a failure is noted in @c->tx_broken */
void urd_client_flush(struct urd_client *c);

/** urd_client_slot - the request with that number; NULL if it is not outstanding */
struct urd_slot *urd_client_slot(struct urd_client *c, u32 msgid);

/**
 * urd_client_read - the next answer or part from the connection, without blocking
 * @c: the client
 * @a: filled in
 * @frame: where it is
 *
 * Return: 1 if there is one, 0, or negative errno, which is remembered in @c->broken.
 */
int urd_client_read(struct urd_client *c, struct urd_answer *a,
		    struct urd_span *frame) URD_MUST_CHECK;

/** urd_client_taken - the user has a chunk: make room for more, by halves of the window */
void urd_client_taken(struct urd_client *c, u32 msgid);

#endif /* URD_CLIENT_IMPL_H */
