/* SPDX-License-Identifier: MIT */
/*
 * Clients: listeners, connections, and what goes in and out of them.  A
 * connection reads requests into jobs and writes answers as they come; all
 * answers of a turn go out in one gathered write.  A client that is slow,
 * greedy, broken or gone costs only itself.
 */
#ifndef URD_FRONT_H
#define URD_FRONT_H

#include "pool/core.h"
#include "pool/pool.h"
#include "wire/inbox.h"

/** Connections of admins, beyond those of clients: there is always one to look at it with. */
#define URD_FRONT_ADMINS_MAX 8u

/** The operations of a connection, urd_op.sub. */
enum urd_conn_op {
	CONN_OP_RD,
	CONN_OP_WR,
	CONN_OP_NR,
};

/**
 * struct urd_conn - one client connection
 * @node: in front->free, or nowhere
 * @dirty: in front->dirty: it has answers to write
 * @hungry: in front->starved: it waits for jobs or memory
 * @fd: stream socket, -1 if unused
 * @half: the client has sent its last byte and may still read
 * @closing: nothing is read or answered any more; freed once quiet
 * @admin: came in through an admin listener
 * @jobs: requests without an answer yet
 * @answers: items on their way out, oldest first
 * @jobs_nr, @answers_nr: how many
 * @answer_bytes: packed bytes in @answers
 * @sent: bytes of the first answer that have gone out
 */
struct urd_conn {
	struct urd_front *front;
	struct urd_list node;
	struct urd_list dirty;
	struct urd_list hungry;
	int fd;
	bool half;
	bool closing;
	bool admin;
	struct urd_list jobs;
	struct urd_list answers;
	u32 jobs_nr;
	u32 answers_nr;
	u64 answer_bytes;
	u32 sent;
	struct urd_inbox in;
	struct urd_op ops[CONN_OP_NR];
	struct iovec iov[URD_OP_IOV_MAX];
};

/** struct urd_listener - one address that is listened on */
struct urd_listener {
	struct urd_front *front;
	int fd;
	bool is_tcp;
	bool admin;
	char path[108]; /* of a Unix socket, to be removed at the end; else "" */
	dev_t dev;
	ino_t ino;
	struct urd_op op;
	struct urd_timer timer; /* accepting is tried again */
};

/** typedef urd_drain_fn - whoever owns the front is to begin a drain */
typedef void (*urd_drain_fn)(void *arg, u64 timeout_ns);

/**
 * struct urd_front - all clients of one core
 * @fallback: serves bare method names
 * @conns: @conns_max of clients, then URD_FRONT_ADMINS_MAX if admins are listened to
 * @conns_nr: open ones, @admins_nr of them of admins
 * @refused: connections closed because there were too many
 * @started_ns: since when
 * @drain, @drain_arg: called when an admin asks for a drain
 * @drain_timeout_ns: its time if he names none
 */
struct urd_front {
	struct urd_core *core;
	struct urd_pool *fallback;
	struct urd_conn *conns;
	u32 conns_max;
	u32 conns_nr;
	u32 admins_max;
	u32 admins_nr;
	u32 inflight_max;
	u64 write_timeout_ns;
	struct urd_list free;
	struct urd_list dirty;
	struct urd_list starved;
	struct urd_listener *listeners;
	u32 listeners_nr;
	u64 refused;
	u64 started_ns;
	urd_drain_fn drain;
	void *drain_arg;
	u64 drain_timeout_ns;
};

/** urd_front_ops - operations that urd_front_init() will register */
u32 urd_front_ops(const struct urd_conf *conf);
/** urd_front_jobs - jobs that clients can hold beyond those in queues and slots */
u32 urd_front_jobs(const struct urd_conf *conf);

/**
 * urd_front_init - make connections and bind listeners; nothing is accepted yet
 * @err: one line about what went wrong
 *
 * Return: 0 or negative errno.
 */
int urd_front_init(struct urd_front *front, struct urd_core *core, const struct urd_conf *conf,
		   char *err, size_t err_len) URD_MUST_CHECK;

/** urd_front_fini - free; every connection must be closed */
void urd_front_fini(struct urd_front *front);

/** urd_front_start - begin to accept */
void urd_front_start(struct urd_front *front);

/** urd_front_stop - stop accepting clients; admins may still come, to see how it goes */
void urd_front_stop(struct urd_front *front);

/** urd_front_complete - a completion of a connection or listener; false if it is neither */
bool urd_front_complete(struct urd_front *front, const struct urd_done *done);

/** urd_front_timer - a due timer of a listener; false if it is none */
bool urd_front_timer(struct urd_front *front, struct urd_timer *t);

/** urd_front_answer - a job of a connection has its answer */
void urd_front_answer(struct urd_front *front, struct urd_job *job);

/** urd_front_chunk - a chunk for a job of a connection */
void urd_front_chunk(struct urd_front *front, struct urd_chunk *chunk);

/** urd_front_settle - after a batch: let starved connections go on */
void urd_front_settle(struct urd_front *front);

/** urd_front_flush - write the answers of this turn */
void urd_front_flush(struct urd_front *front);

/**
 * urd_front_close - stop accepting altogether and close all connections
 * @all: also those that have answers to write
 */
void urd_front_close(struct urd_front *front, bool all);

/** urd_front_is_quiet - nothing is open, nothing in flight */
bool urd_front_is_quiet(const struct urd_front *front);

/* ---- between the files of front/ ---- */

/** conn_open - take over an accepted socket */
void conn_open(struct urd_front *front, int fd, bool admin);
/** conn_close - cut it; its requests are dropped */
void conn_close(struct urd_conn *conn);
/** conn_request - a frame has arrived; takes over f->buf; Return: 0 or -EBADMSG (cut it) */
int conn_request(struct urd_conn *conn, struct urd_frame *f, struct urd_job *job);
/** conn_pack - make the bytes of an answer: job->item */
void conn_pack(struct urd_conn *conn, struct urd_job *job);
/** conn_pack_chunk - make the bytes of a chunk: chunk->item; Return: 0 or -ENOMEM */
int conn_pack_chunk(struct urd_conn *conn, struct urd_chunk *chunk) URD_MUST_CHECK;
/** listeners_init - bind them all; Return: 0 or negative errno with @err filled in */
int listeners_init(struct urd_front *front, const struct urd_conf *conf, char *err, size_t err_len);
/** listeners_stop - stop accepting, from admins too if @admins, and remove the sockets */
void listeners_stop(struct urd_front *front, bool admins);
/** admin_request - answer a job with a method of urd's own; false if it is none of admin.c's */
bool admin_request(struct urd_conn *conn, struct urd_job *job);
/** listener_accepted - a completion of an accept */
void listener_accepted(struct urd_listener *l, const struct urd_done *done);

#endif /* URD_FRONT_H */
