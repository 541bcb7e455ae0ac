/* SPDX-License-Identifier: MIT */
/*
 * What one ring thread owns: its ring, the memory of all frames, the requests in
 * flight, the pools and their slots, and the deadlines that no linked timeout
 * guards.  Nothing here is shared; there is no lock.
 *
 * Time is read once per turn and kept in @now_ns: whatever happens within a turn
 * happens at the same time.
 */
#ifndef URD_CORE_H
#define URD_CORE_H

#include <urd/urd.h>

#include "base/arena.h"
#include "base/base.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/log.h"
#include "ring/ring.h"
#include "ring/spawn.h"
#include "wire/rpc.h"

struct urd_pool;
struct urd_slot;

/** Chunks on their way to callers at once; when all are in use, streams wait. */
#define URD_CORE_CHUNKS 4096u

/** Answers of the spawner taken with one read. */
#define URD_CORE_SPAWNED 8

/** enum urd_origin - who waits for the answer of a job */
enum urd_origin {
	URD_ORIGIN_CONN, /* a client connection */
	URD_ORIGIN_CALL, /* a caller in this process */
};

/** What still holds a job; it is free again when nothing does. */
enum {
	URD_HOLD_CALLER = 1 << 0, /* its answer is not yet with the caller */
	URD_HOLD_WORKER = 1 << 1, /* a worker has it, or the kernel its bytes */
};

/** enum urd_timer_kind - what the owner of a timer is */
enum urd_timer_kind {
	URD_TIMER_JOB,	    /* a queued job: its queue deadline */
	URD_TIMER_SLOT,	    /* a slot: its backoff, its age, its idleness */
	URD_TIMER_SCALE,    /* a pool: a request has waited long enough for one more worker */
	URD_TIMER_MEMORY,   /* a pool: time to look at the memory of busy workers */
	URD_TIMER_LISTENER, /* a listener that ran out of descriptors */
	URD_TIMER_HOST,	    /* the drain deadline */
};

/**
 * struct urd_item - bytes on their way to a client: an answer or a chunk
 * @node: in the connection's list
 * @p, @len: the bytes
 * @is_chunk: part of a struct urd_chunk, else of a struct urd_job
 */
struct urd_item {
	struct urd_list node;
	u8 *p;
	u32 len;
	bool is_chunk;
};

/** enum urd_chunk_kind - what a chunk is */
enum urd_chunk_kind {
	URD_CHUNK_DATA,	    /* a part of a streamed answer */
	URD_CHUNK_PROGRESS, /* how far a request has come */
};

/**
 * struct urd_chunk - something for the caller before his answer
 * @item: towards a client
 * @node: in core->chunks until passed on, or in core->chunks_free
 * @job: whose; valid until passed on
 * @kind: what it is
 * @buf: block that it is in
 * @data, @len: one MessagePack value, with URD_HEADROOM before it
 */
struct urd_chunk {
	struct urd_item item;
	struct urd_list node;
	struct urd_job *job;
	enum urd_chunk_kind kind;
	struct urd_buf buf;
	u8 *data;
	u32 len;
};

/**
 * struct urd_job - one request on its way
 * @node: worker's side: in the pool's queue, with a slot, or free
 * @caller: caller's side: in a list of its owner
 * @done: in core->done from the answer until it is passed on
 * @due: queue deadline, while queued
 * @pool: which pool
 * @slot: which slot has it, or NULL
 * @owner: connection or call; NULL if nobody waits any more
 * @origin: which of the two
 * @holds: URD_HOLD_*
 * @attempt: workers that it was given to
 * @stream: the caller takes chunks
 * @progress: the caller wants to hear of progress
 * @tell_cancel: the worker is still to be told to cancel it
 * @credit: chunks that the worker may still send
 * @credit_due: credit that the worker is still to be told of
 * @gap_ns: when the last chunk came, or the request was sent
 * @answered: the caller has his answer (or it is on its way)
 * @overdue: answered in the worker's stead, and the worker still has it
 * @early: the worker answered before it had read all
 * @msgid: number towards the worker
 * @caller_msgid: number towards the caller
 * @arrived_ns, @deadline_ns, @exec_due_ns: points in time; deadline is the caller's
 * @req: block with the request
 * @params, @params_len: in @req, with URD_HEADROOM before them
 * @method: in @req, without the pool's name
 * @trace: traceparent, NUL-terminated, "" if none
 * @frame, @frame_len: what is written to the worker, in @req
 * @sent: bytes of frame and meta written
 * @meta, @meta_len: packed metadata, written after the frame
 * @res: block with the answer
 * @body, @body_len: error and result in @res, with URD_HEADROOM before them
 * @error, @result: spans of @body
 * @item: towards a client
 * @code, @executed, @retry_after_ms: outcome
 * @detail: text about a failure, NUL-terminated, in @res; or NULL
 * @spare: room for a short error when there is no memory for a longer one
 */
struct urd_job {
	struct urd_list node;
	struct urd_list caller;
	struct urd_list done;
	struct urd_timer due;
	struct urd_pool *pool;
	struct urd_slot *slot;
	void *owner;
	u8 origin;
	u8 holds;
	u8 attempt;
	bool answered;
	bool overdue;
	bool early;
	bool stream;
	bool progress;
	bool tell_cancel;
	u32 credit;
	u32 credit_due;
	u64 gap_ns;
	u32 msgid;
	u32 caller_msgid;
	u64 arrived_ns;
	u64 deadline_ns;
	u64 exec_due_ns;
	struct urd_buf req;
	u8 *params;
	u32 params_len;
	struct urd_span method;
	char trace[64];
	u8 *frame;
	u32 frame_len;
	u32 sent;
	u8 meta[160];
	u32 meta_len;
	struct urd_buf res;
	u8 *body;
	u32 body_len;
	struct urd_span error;
	struct urd_span result;
	struct urd_item item;
	enum urd_code code;
	enum urd_executed executed;
	u32 retry_after_ms;
	const char *detail;
	u8 spare[URD_HEADROOM + 128];
};

/** struct urd_core - one ring thread's world; see the file comment */
struct urd_core {
	struct urd_ring *ring;
	struct urd_log *log;
	struct urd_spawner *spawner;
	struct urd_arena arena;
	struct urd_heap heap;
	u64 now_ns;
	u64 random;
	u32 msgid;
	bool draining;
	bool behind; /* something waits for a write that may have gone out already */

	struct urd_job *jobs;
	u32 jobs_nr;
	u32 jobs_out;
	struct urd_list jobs_free;
	struct urd_chunk *chunk_mem;
	struct urd_list chunks_free;
	struct urd_list chunks;	 /* not yet passed on; always before @done */
	struct urd_list done;	 /* answered, not yet passed on */
	struct urd_list starved; /* slots that wait for memory */

	struct urd_pool *pools;
	u32 pools_nr;
	struct urd_slot *slots;
	u32 slots_nr;
	u32 line_max;

	char *lines;

	struct urd_op spawn_op;
	struct urd_spawned spawned[URD_CORE_SPAWNED];
};

/**
 * struct urd_core_conf - sizes of a core
 * @conf: the whole configuration
 * @ops_extra: operations of others on the ring (connections, listeners)
 * @jobs_extra: jobs beyond those that pools and slots can hold
 * @timers_extra: timers of others
 */
struct urd_core_conf {
	const struct urd_conf *conf;
	u32 ops_extra;
	u32 jobs_extra;
	u32 timers_extra;
};

/**
 * urd_core_init - make ring, memory, pools and slots; nothing is started
 * @core: filled in
 * @cc: sizes
 * @log: where to log
 *
 * Context: the thread that will turn the ring.
 * Return: 0, -ENOMEM, or as urd_ring_new().
 */
int urd_core_init(struct urd_core *core, const struct urd_core_conf *cc,
		  struct urd_log *log) URD_MUST_CHECK;

/** urd_core_fini - free everything; all slots must be vacant, all jobs back */
void urd_core_fini(struct urd_core *core);

/** urd_core_start - start the spawner and fill the pools; Return: 0 or negative errno */
int urd_core_start(struct urd_core *core) URD_MUST_CHECK;

/** urd_core_complete - a completion of a slot's op or the spawner's; false if it is neither */
bool urd_core_complete(struct urd_core *core, const struct urd_done *done);

/** urd_core_timer - a due timer of a job or a slot; false if it is neither */
bool urd_core_timer(struct urd_core *core, struct urd_timer *t);

/** urd_core_settle - after a batch: give queued jobs to free workers, feed the starved */
void urd_core_settle(struct urd_core *core);

/**
 * urd_core_drain - retire every worker that has nothing to do once nothing is queued
 *
 * Call it every turn while draining.  Return: true when all slots are vacant.
 */
bool urd_core_drain(struct urd_core *core);

/** urd_core_cut - the drain's time is up: fail what is queued, kill what runs */
void urd_core_cut(struct urd_core *core);

/** urd_core_random - a pseudo-random number for jitter and choices */
u64 urd_core_random(struct urd_core *core);

/** urd_core_pool - find a pool by name; NULL if there is none */
struct urd_pool *urd_core_pool(struct urd_core *core, struct urd_span name);

/**
 * urd_job_get - take a free job
 *
 * Return: the job, held by its caller and cleared; NULL if all are in use.
 */
struct urd_job *urd_job_get(struct urd_core *core);

/** urd_job_release - drop a hold; the last one frees the job and its blocks */
void urd_job_release(struct urd_core *core, struct urd_job *job, u8 hold);

/**
 * urd_job_answer - settle the outcome and queue the job for being passed on
 * @code: outcome; URD_OK and URD_APP want @body filled in before
 *
 * Exactly once per job; asserted.
 */
void urd_job_answer(struct urd_core *core, struct urd_job *job, enum urd_code code);

/**
 * urd_job_detail - keep a text about a failure for the caller
 *
 * Before urd_job_answer().  Dropped if there is no memory for it.
 */
void urd_job_detail(struct urd_core *core, struct urd_job *job, const char *fmt, ...)
	URD_PRINTF(3, 4);

/** Credit of a stream when it begins, in chunks. */
#define URD_STREAM_CREDIT 16u

/**
 * urd_chunk_get - take a free chunk for a job
 *
 * Return: the chunk, in core->chunks; NULL if all are in use.
 */
struct urd_chunk *urd_chunk_get(struct urd_core *core, struct urd_job *job,
				enum urd_chunk_kind kind);

/** urd_chunk_put - a chunk has been passed on or is not wanted */
void urd_chunk_put(struct urd_core *core, struct urd_chunk *chunk);

/** urd_job_grant - the caller takes @n more chunks */
void urd_job_grant(struct urd_job *job, u32 n);

/** urd_job_regrant - the caller has gone: chunks go nowhere, and must not stop for that */
void urd_job_regrant(struct urd_job *job);

/**
 * urd_job_drop - the caller has gone; what runs is treated by the pool's policy
 *
 * The job is not passed on any more; the caller's hold goes.
 */
void urd_job_drop(struct urd_core *core, struct urd_job *job);

/**
 * urd_job_cancel - the caller asks not to go on, and still wants an answer
 */
void urd_job_cancel(struct urd_core *core, struct urd_job *job);

#endif /* URD_CORE_H */
