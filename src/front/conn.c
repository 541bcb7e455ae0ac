// SPDX-License-Identifier: MIT
/*
 * A client connection: bytes in, bytes out, and the end of it.  What the bytes
 * mean is in request.c.
 *
 * Bounds: one inbox buffer; at most inflight_max requests without an answer (one
 * more is refused with RATE); and while a client does not read its answers it is
 * not read from either, and cut after client_write_timeout.
 */
#include <stdlib.h>

#include "front/front.h"

/* Read buffer of a connection, bytes; larger frames get their own. */
#define CONN_CHUNK 16384u
/* Answers that wait to be written, beyond which nothing more is read. */
#define CONN_ANSWERS_MAX 4096u
#define CONN_ANSWER_BYTES_MAX (8u << 20)
/* Bytes of one gathered write; a larger answer goes alone. */
#define CONN_WRITE_MAX (1u << 20)

static struct urd_op *conn_op(struct urd_conn *conn, enum urd_conn_op op)
{
	return &conn->ops[op];
}

static struct urd_ring *conn_ring(struct urd_conn *conn)
{
	return conn->front->core->ring;
}

static u32 admins_max(const struct urd_conf *conf)
{
	for (u32 i = 0; i < conf->listen_nr; i++)
		if (conf->listen[i].admin)
			return URD_FRONT_ADMINS_MAX;
	return 0;
}

u32 urd_front_ops(const struct urd_conf *conf)
{
	return (conf->conns_max + admins_max(conf)) * CONN_OP_NR + conf->listen_nr;
}

u32 urd_front_jobs(const struct urd_conf *conf)
{
	/* answers that wait to be written; when they are used up, reading stops */
	return conf->conns_max + CONN_ANSWERS_MAX;
}

/* ---- open and close ---- */

void conn_open(struct urd_front *front, int fd, bool admin)
{
	u32 clients_nr = front->conns_nr - front->admins_nr;
	struct urd_conn *conn;
	struct urd_list *n;

	if (admin ? front->admins_nr >= front->admins_max : clients_nr >= front->conns_max) {
		front->refused++;
		urd_ring_close_fd(front->core->ring, fd);
		return;
	}
	n = urd_list_pop(&front->free);
	urd_assert(n != NULL);
	conn = urd_list_entry(n, struct urd_conn, node);
	conn->fd = fd;
	conn->admin = admin;
	conn->half = false;
	conn->closing = false;
	conn->sent = 0;
	urd_inbox_init(&conn->in, &front->core->arena, URD_DIALECT_UNKNOWN, URD_REQUEST_MAX,
		       CONN_CHUNK);
	front->conns_nr++;
	front->admins_nr += admin;
	urd_list_push(&front->starved, &conn->hungry); /* armed by the next settle */
}

/* The first item has gone out, or never will. */
static void conn_pop(struct urd_conn *conn)
{
	struct urd_core *core = conn->front->core;
	struct urd_item *item = urd_list_first(&conn->answers, struct urd_item, node);

	urd_assert(conn->answers_nr > 0 && conn->answer_bytes >= item->len);
	conn->answers_nr--;
	conn->answer_bytes -= item->len;
	urd_list_del(&item->node);
	if (item->is_chunk)
		urd_chunk_put(core, container_of(item, struct urd_chunk, item));
	else
		urd_job_release(core, container_of(item, struct urd_job, item), URD_HOLD_CALLER);
}

static void conn_push(struct urd_conn *conn, struct urd_item *item)
{
	urd_list_push(&conn->answers, &item->node);
	conn->answers_nr++;
	conn->answer_bytes += item->len;
	if (urd_list_empty(&conn->dirty))
		urd_list_push(&conn->front->dirty, &conn->dirty);
}

static void conn_try_free(struct urd_conn *conn)
{
	struct urd_front *front = conn->front;

	if (!conn->closing || conn->fd < 0)
		return;
	for (u32 i = 0; i < CONN_OP_NR; i++)
		if (!urd_op_is_idle(conn_op(conn, i)))
			return;
	while (conn->answers_nr)
		conn_pop(conn);
	urd_inbox_reset(&conn->in);
	urd_ring_close_fd(front->core->ring, conn->fd);
	conn->fd = -1;
	urd_assert(conn->jobs_nr == 0 && front->conns_nr > 0);
	front->conns_nr--;
	front->admins_nr -= conn->admin;
	urd_list_push_front(&front->free, &conn->node);
}

void conn_close(struct urd_conn *conn)
{
	if (conn->closing)
		return;
	conn->closing = true;
	urd_list_del(&conn->dirty);
	urd_list_del(&conn->hungry);
	while (!urd_list_empty(&conn->jobs)) {
		struct urd_job *job = urd_list_first(&conn->jobs, struct urd_job, caller);

		conn->jobs_nr--;
		urd_job_drop(conn->front->core, job);
	}
	for (u32 i = 0; i < CONN_OP_NR; i++)
		urd_op_cancel(conn_ring(conn), conn_op(conn, i));
	conn_try_free(conn);
}

/* A client that sends nothing more is done once it has all its answers. */
static void conn_try_finish(struct urd_conn *conn)
{
	if (conn->half && !conn->closing && !conn->jobs_nr && !conn->answers_nr)
		conn_close(conn);
}

/* ---- in ---- */

static bool conn_is_full(const struct urd_conn *conn)
{
	return conn->answers_nr >= CONN_ANSWERS_MAX || conn->answer_bytes >= CONN_ANSWER_BYTES_MAX;
}

static void conn_starve(struct urd_conn *conn)
{
	if (urd_list_empty(&conn->hungry))
		urd_list_push(&conn->front->starved, &conn->hungry);
}

/* Hand out what has arrived. Returns false if it must wait, or is cut. */
static bool conn_frames(struct urd_conn *conn)
{
	struct urd_core *core = conn->front->core;

	while (!conn_is_full(conn)) {
		struct urd_job *job = urd_job_get(core);
		struct urd_frame f;
		int ret;

		if (!job) {
			conn_starve(conn);
			return false;
		}
		ret = urd_inbox_next(&conn->in, &f);
		if (ret == 1)
			ret = conn_request(conn, &f, job) ? -EBADMSG : 1;
		else
			urd_job_release(core, job, URD_HOLD_CALLER);
		if (ret == -ENOMEM) {
			conn_starve(conn);
			return false;
		}
		if (ret < 0) {
			conn_close(conn);
			return false;
		}
		if (ret == 0)
			return true;
	}
	return false; /* goes on when answers have been written */
}

static void conn_arm_read(struct urd_conn *conn)
{
	u8 *p;
	u32 len;

	if (conn->closing || conn->half || !urd_op_is_idle(conn_op(conn, CONN_OP_RD)))
		return;
	if (urd_inbox_space(&conn->in, &p, &len)) {
		conn_starve(conn);
		return;
	}
	urd_op_read(conn_ring(conn), conn_op(conn, CONN_OP_RD), conn->fd, p, len, URD_NEVER);
}

static void conn_go_on(struct urd_conn *conn)
{
	if (!conn->closing && urd_op_is_idle(conn_op(conn, CONN_OP_RD)) && conn_frames(conn))
		conn_arm_read(conn);
	conn_try_finish(conn);
}

static void conn_read(struct urd_conn *conn, s32 res)
{
	if (conn->closing)
		return;
	if (res > 0) {
		urd_inbox_commit(&conn->in, (u32)res);
		conn_go_on(conn);
	} else if (urd_res_is_again(res)) {
		conn_arm_read(conn);
	} else if (res == 0 && urd_inbox_is_clean(&conn->in) &&
		   !urd_ring_hung_up(conn_ring(conn), conn->fd)) {
		conn->half = true;
		conn_try_finish(conn);
	} else {
		conn_close(conn);
	}
}

/* ---- out ---- */

void urd_front_answer(struct urd_front *front, struct urd_job *job)
{
	struct urd_conn *conn = job->owner;

	if (!conn) {
		urd_job_release(front->core, job, URD_HOLD_CALLER);
		return;
	}
	urd_assert(!conn->closing && conn->jobs_nr > 0);
	urd_list_del(&job->caller);
	conn->jobs_nr--;
	conn_pack(conn, job);
	conn_push(conn, &job->item);
}

void urd_front_chunk(struct urd_front *front, struct urd_chunk *chunk)
{
	struct urd_conn *conn = chunk->job->owner;

	if (!conn && chunk->kind == URD_CHUNK_DATA)
		urd_job_regrant(chunk->job);
	/* progress is dropped rather than piled up before a slow reader */
	if (!conn || (chunk->kind == URD_CHUNK_PROGRESS && conn->answers_nr > 64) ||
	    conn_pack_chunk(conn, chunk)) {
		urd_chunk_put(front->core, chunk);
		return;
	}
	urd_list_del(&chunk->node);
	conn_push(conn, &chunk->item);
}

static void conn_write(struct urd_conn *conn)
{
	u64 deadline = urd_ns_add(conn->front->core->now_ns, conn->front->write_timeout_ns);
	u32 off = conn->sent, n = 0;
	u64 bytes = 0;
	struct urd_item *item;

	if (conn->closing || !conn->answers_nr || !urd_op_is_idle(conn_op(conn, CONN_OP_WR)))
		return;
	urd_list_for_each(item, &conn->answers, node) {
		if (n == URD_OP_IOV_MAX || (n && bytes + item->len > CONN_WRITE_MAX))
			break;
		conn->iov[n++] = (struct iovec){ item->p + off, item->len - off };
		bytes += item->len - off;
		off = 0;
	}
	urd_op_write(conn_ring(conn), conn_op(conn, CONN_OP_WR), conn->fd, true, conn->iov, n,
		     conn->sent > 0, deadline);
	/* more answers, its end, or its next requests wait for this one to have gone out */
	if (n < conn->answers_nr || urd_op_is_idle(conn_op(conn, CONN_OP_RD)))
		conn->front->core->behind = true;
}

static void conn_written(struct urd_conn *conn, s32 res)
{
	if (conn->closing)
		return;
	if (res <= 0) {
		conn_close(conn);
		return;
	}
	conn->sent += (u32)res;
	while (conn->answers_nr) {
		u32 len = urd_list_first(&conn->answers, struct urd_item, node)->len;

		if (conn->sent < len)
			break;
		conn->sent -= len;
		conn_pop(conn);
	}
	if (conn->answers_nr && urd_list_empty(&conn->dirty))
		urd_list_push(&conn->front->dirty, &conn->dirty);
	conn_go_on(conn); /* it may have waited for this */
}

void urd_front_flush(struct urd_front *front)
{
	while (!urd_list_empty(&front->dirty)) {
		struct urd_conn *conn = urd_list_first(&front->dirty, struct urd_conn, dirty);

		urd_list_del(&conn->dirty);
		conn_write(conn);
	}
}

/* ---- all of them ---- */

bool urd_front_complete(struct urd_front *front, const struct urd_done *done)
{
	struct urd_conn *conn;

	(void)front;
	if (done->op->kind == URD_OP_LISTENER) {
		listener_accepted(container_of(done->op, struct urd_listener, op), done);
		return true;
	}
	if (done->op->kind != URD_OP_CONN)
		return false;
	conn = container_of(done->op - done->op->sub, struct urd_conn, ops[0]);
	if (done->op->sub == CONN_OP_RD)
		conn_read(conn, done->res);
	else
		conn_written(conn, done->res);
	conn_try_free(conn);
	return true;
}

void urd_front_settle(struct urd_front *front)
{
	struct urd_list again;

	if (urd_list_empty(&front->starved))
		return;
	/* those that starve again go to the end and wait for the next turn */
	again = front->starved;
	again.next->prev = &again;
	again.prev->next = &again;
	urd_list_init(&front->starved);
	while (!urd_list_empty(&again)) {
		struct urd_conn *conn = urd_list_first(&again, struct urd_conn, hungry);

		urd_list_del(&conn->hungry);
		conn_go_on(conn);
	}
}

void urd_front_close(struct urd_front *front, bool all)
{
	listeners_stop(front, true);
	for (u32 i = 0; i < front->conns_max + front->admins_max; i++) {
		struct urd_conn *conn = &front->conns[i];

		if (conn->fd >= 0 && (all || (!conn->jobs_nr && !conn->answers_nr)))
			conn_close(conn);
	}
}

bool urd_front_is_quiet(const struct urd_front *front)
{
	for (u32 i = 0; i < front->listeners_nr; i++)
		if (!urd_op_is_idle(&front->listeners[i].op))
			return false;
	return front->conns_nr == 0;
}

int urd_front_init(struct urd_front *front, struct urd_core *core, const struct urd_conf *conf,
		   char *err, size_t err_len)
{
	memset(front, 0, sizeof(*front));
	front->core = core;
	front->conns_max = conf->conns_max;
	front->admins_max = admins_max(conf);
	front->started_ns = urd_ring_now(core->ring);
	front->drain_timeout_ns = conf->drain_timeout_ns;
	front->inflight_max = conf->conn_inflight_max;
	front->write_timeout_ns = conf->client_write_timeout_ns;
	urd_list_init(&front->free);
	urd_list_init(&front->dirty);
	urd_list_init(&front->starved);
	front->fallback = urd_core_pool(core, (struct urd_span){ (const u8 *)"default", 7 });
	if (!front->fallback)
		front->fallback = &core->pools[0];
	front->conns = calloc(front->conns_max + front->admins_max + 1, sizeof(*front->conns));
	if (!front->conns)
		return -ENOMEM;
	for (u32 i = 0; i < front->conns_max + front->admins_max; i++) {
		struct urd_conn *conn = &front->conns[i];

		conn->front = front;
		conn->fd = -1;
		urd_list_init(&conn->dirty);
		urd_list_init(&conn->hungry);
		urd_list_init(&conn->jobs);
		urd_list_init(&conn->answers);
		urd_list_init(&conn->node);
		urd_list_push(&front->free, &conn->node);
		for (u32 k = 0; k < CONN_OP_NR; k++)
			urd_op_init(core->ring, &conn->ops[k], URD_OP_CONN, (u8)k);
	}
	return listeners_init(front, conf, err, err_len);
}

void urd_front_fini(struct urd_front *front)
{
	urd_assert(front->conns_nr == 0);
	free(front->conns);
	free(front->listeners);
}
