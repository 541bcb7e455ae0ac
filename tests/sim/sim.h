/* SPDX-License-Identifier: MIT */
/*
 * The simulator: a whole urd, its workers and its clients in one thread and in
 * virtual time, all chance drawn from one seed.  ring_sim.c and spawn_sim.c
 * stand where io_uring and the spawner thread stand in the daemon; everything
 * above them is the real thing.
 *
 * There is one world at a time, in the variable `sim', which is wiped between
 * seeds.  Nothing depends on addresses, on the clock or on the environment: a
 * seed replays bit for bit.
 */
#ifndef URD_SIM_H
#define URD_SIM_H

#include "host/host.h"
#include "pool/slot.h"

#define SIM_CHANS 768u
#define SIM_CHAN_BYTES 65536u
#define SIM_FDS 1024u
#define SIM_OPS 2048u
#define SIM_WORKERS 256u
#define SIM_CLIENTS 24u
#define SIM_REQS 8192u
#define SIM_EVENTS 65536u
#define SIM_TASKS 16u
#define SIM_OUTSTANDING 64u
#define SIM_POOLS 3u
#define SIM_SQUATS 16u
/** Bytes that a model worker or client can hold of what it reads or writes. */
#define SIM_IO_BYTES (512u << 10)
/** Longest blob in a request or an answer. */
#define SIM_BLOB_MAX (200u << 10)
/** First descriptor number, far above any real one. */
#define SIM_FD_BASE (1 << 20)
#define SIM_NONE 0xffffu

/*
 * What is drawn from the seed: X(name).  Rates are per mille, times in ns.  All
 * of it is printed when a seed fails.
 */
/* clang-format off */
#define SIM_OPTIONS(X)                                                                        \
	X(requests)	   /* in the stormy part of the run */                                \
	X(pools) X(min_workers) X(max_workers) X(folk) X(concurrency) X(queue_max)            \
	X(queue_max_bytes) X(request_max) X(response_max) X(boot_timeout) X(queue_timeout)    \
	X(exec_timeout) X(stop_timeout) X(grace) X(backoff_min) X(backoff_max) X(gone)        \
	X(clients) X(conns_max) X(inflight_max) X(write_timeout) X(depth) X(callers)          \
	X(pipe_bytes) X(socket_bytes) X(blob_max) X(work_max) X(think_max) X(boot_max)        \
	X(lag)		   /* completions that take their time */                             \
	X(lag_max)                                                                            \
	X(short_io)	   /* reads and writes of less than there is */                       \
	X(batch)	   /* turns that hand out several completions */                      \
	X(spawn_fault) X(spawn_slow) X(worker_fault) X(task_fault) X(stall) X(retire)         \
	X(chatter) X(client_fault) X(cancel) X(deadline) X(odd_request) X(accept_fault)       \
	X(squat)	   /* memory taken away for a while */                                \
	X(heirs)	   /* workers with children that outlive them */                      \
	X(drain_mid)	   /* drain while the storm goes on: 1 yes */                         \
	X(drain_timeout) X(start_ns) X(rss_base) X(rss_step) X(memory_soft) X(memory_hard)    \
	X(max_jobs) X(ttl) X(idle_timeout) X(scale_after) X(max_surge) X(recycle_max)         \
	X(heartbeat) X(stream_gap) X(stream)                                                  \
	X(orders)	   /* scale and reload in the storm */
/* clang-format on */

#define SIM_FIELD(n) u64 n;
/** struct sim_opts - see SIM_OPTIONS */
struct sim_opts {
	SIM_OPTIONS(SIM_FIELD)
};
#undef SIM_FIELD

/** What a queued event of the simulation is about. */
enum sim_ev_kind {
	EV_OP,	     /* an operation may be ready */
	EV_DEADLINE, /* its linked timeout */
	EV_CANCEL,   /* somebody asked it to end */
	EV_ACCEPT,   /* a client knocks */
	EV_SPAWN,    /* the spawner gets to work */
	EV_KILL,     /* SIGKILL takes effect */
	EV_WORKER,   /* a model worker's next step */
	EV_CLIENT,   /* a model client's next step */
	EV_WORLD,    /* the script of the run */
};

/** struct sim_ev - an event; of two at the same time the older one comes first */
struct sim_ev {
	u64 t;
	u64 order;
	u32 idx;
	u32 tag;
	u8 kind;
};

/** Ends of a stream that belong to a model: whom to wake. */
struct sim_who {
	u8 kind;
	u16 idx;
};

/**
 * struct sim_chan - bytes on their way in one direction
 * @readers, @writers: open ends
 * @reset: the reader gets ECONNRESET instead of an end of file
 * @rd_op, @wr_op: op of urd that is armed on it, plus one
 * @who: the model at the other end
 */
struct sim_chan {
	u32 cap;
	u32 head;
	u32 len;
	u8 readers;
	u8 writers;
	bool used;
	bool reset;
	u32 rd_op;
	u32 wr_op;
	struct sim_who who;
};

enum sim_fd_kind { FD_FREE, FD_STREAM, FD_PIDFD, FD_SPAWNER, FD_LISTEN };

/** struct sim_fd - a descriptor of urd's */
struct sim_fd {
	u8 kind;
	bool shut;
	u16 in;
	u16 out;
	u16 worker;
	u32 gen;
};

/** The channels of a worker. */
enum sim_worker_chan { W_TASK_IN, W_TASK_OUT, W_CTL_IN, W_CTL_OUT, W_OUT, W_ERR, W_CHANS };

/** What becomes of a request in a worker's hands. */
enum sim_how {
	HOW_OK,
	HOW_APP,
	HOW_NEVER,
	HOW_TWICE,
	HOW_WRONG_ID,
	HOW_GARBAGE,
	HOW_OVERSIZE,
	HOW_CRASH,
	HOW_TORN, /* dies within the answer */
	HOW_EXIT,
	HOW_CLOSE, /* closes its streams and lives on */
	HOW_REQUEST,
	HOW_CHUNK,
	HOW_SURPLUS, /* bytes after the answer */
	HOW_NOTIFY,  /* harmless, before the answer */
	HOW_LATE,
	HOW_STOP, /* stands still for a while */
	HOW_LAST, /* answers and ends at once */
	HOW_NR,
};

enum sim_ready {
	READY_GOOD,
	READY_NO_PID,
	READY_VERSION,
	READY_ZERO,
	READY_GARBAGE,
	READY_OTHER, /* something else comes first */
	READY_TWICE,
	READY_NEVER,
	READY_RETIRE, /* ready, and a wish to leave at once */
	READY_NR,
};

/** struct sim_task - a request in a worker's hands */
struct sim_task {
	u32 msgid;
	u32 id;
	u64 due;
	u8 how;
	bool cancelled;
	u32 chunks; /* still to be sent before the answer */
	u32 said;   /* chunks sent */
	u32 credit;
};

/** struct sim_worker - a model worker process */
struct sim_worker {
	bool used;
	bool dead;
	bool reaped;
	bool closed;
	bool folk;
	bool killed;
	bool term;
	bool ready_sent;
	bool can_cancel;
	bool can_meta;
	bool can_stream;
	bool whole; /* its last answer is wholly in the pipe */
	bool mute;  /* gives no sign of life */
	bool ignores_term;
	bool ignores_eof;
	bool heirs;
	bool escaped; /* the heirs are in another session */
	bool early;   /* the frame being read was answered */
	bool torn;    /* what it has sent is no whole frame */
	u8 ready;
	u8 tasks_nr;
	u16 pool;
	u16 ch[W_CHANS];
	bool open[W_CHANS];
	u32 slot;
	u32 conc;
	int pid;
	int status_code;
	int status;
	u64 sched;
	u64 boot_at;
	u64 exit_at;
	u64 stall_until;
	u64 chat_at;
	u64 close_at;
	u64 beat_at;
	u32 crash_in;
	u32 crash_out;
	u32 in_len;
	u32 out_at;
	u32 out_len;
	u32 ctl_len;
	u32 served;
	u32 last_id;
	struct sim_task tasks[SIM_TASKS];
	u8 ctl[512];
};

/** What a request is for. */
enum sim_req_kind { REQ_WORK, REQ_PING, REQ_NO_POOL, REQ_NO_METHOD, REQ_MALFORMED };

/** Where a request is, as its caller sees it. */
enum sim_req_state { RS_FREE, RS_OPEN, RS_DONE, RS_LOST };

/** struct sim_req - one request of the run */
struct sim_req {
	u8 kind;
	u8 state;
	u8 seen; /* workers that read all of it */
	u8 pool;
	bool told_no; /* answered, executed: no */
	bool cancelled;
	bool stream;
	bool progress;
	bool proof;	 /* must succeed */
	bool owed;	 /* its answer lay in the pipe when the worker ended by itself */
	bool early_seen; /* answered by a worker that had not read all of it */
	u16 client;
	u32 msgid;
	u32 blob;
	u32 chunks;  /* that have come */
	u32 granted; /* that may come */
	u64 sent_ns;
	u64 deadline_ns; /* duration, URD_NEVER for none */
};

enum sim_client_state { CS_AWAY, CS_KNOCKING, CS_OPEN };

/** struct sim_client - a model client */
struct sim_client {
	u8 state;
	bool plain;
	bool half;
	bool honest;
	bool garbage; /* has sent some */
	bool accepted;
	u16 tx;
	u16 rx;
	u32 left; /* requests until it hangs up */
	u32 depth;
	u32 open_nr;
	u32 open[SIM_OUTSTANDING];
	u32 tx_at;
	u32 tx_len;
	u32 rx_len;
	u64 sched;
	u64 next_at;
	u64 stall_until;
};

enum sim_phase { PHASE_STORM, PHASE_HEAL, PHASE_PROOF, PHASE_DRAIN, PHASE_OVER };

/** struct sim_note - a line of the timeline */
struct sim_note {
	u64 t;
	u32 what;
	u32 a;
	u64 b;
	u64 c;
};

#define SIM_NOTES 1024u

/** struct sim - the world */
struct sim {
	u64 seed;
	u64 rng[4];
	u64 now;
	bool trace;
	bool faulty; /* faults may happen */
	bool calm;   /* no worker of this run ever does anything wrong */
	u8 phase;
	bool world_due;
	struct sim_opts o;
	struct urd *urd;

	u32 ev_nr;
	u64 ev_order;

	struct sim_chan chan[SIM_CHANS];
	u16 chan_free[SIM_CHANS];
	u32 chan_free_nr;
	struct sim_fd fd[SIM_FDS];
	u16 fd_free[SIM_FDS];
	u32 fd_free_nr;
	u32 fd_open;

	struct sim_worker worker[SIM_WORKERS];
	u32 alive;
	int pid;
	u64 worker_faults; /* deeds that can cost callers their answers */

	struct sim_client client[SIM_CLIENTS];
	struct sim_req req[SIM_REQS];
	u32 req_nr;
	u32 req_open;
	u32 req_limit;
	u32 callers_open;
	u64 caller_at;
	int listen_fd;
	u32 listen_op; /* plus one */
	u16 backlog[SIM_CLIENTS];
	u32 backlog_nr;
	struct urd_buf squat[SIM_SQUATS];
	u32 squat_nr;

	u32 slot; /* whose completion is being looked at */
	u64 turns;
	u64 outcomes[URD_CODE_NR];
	u64 hash;
	u64 notes_nr;
};

extern struct sim sim;

/** struct sim_total - counts over all seeds of a run of the program */
struct sim_total {
	u64 requests;
	u64 turns;
	u64 spawns;
	u64 virtual_ns;
	u64 outcomes[URD_CODE_NR];
	u64 rows[SLOT_NR][SEV_NR];
};

extern struct sim_total sim_total;

/* ---- events.c: time, chance, the timeline ---- */

/** What a note says: X(name, text, name of a, name of b, name of c). */
#define SIM_NOTE_LIST(X)                                             \
	X(ARM, "arm", "op", "kind.sub", "fd")                        \
	X(DONE, "done", "op", "kind.sub", "res")                     \
	X(CANCEL, "cancel", "op", "kind.sub", "state")               \
	X(CLOSE, "close", "fd", "kind", "-")                         \
	X(STEP, "slot", "slot", "state", "event")                    \
	X(DISPATCH, "dispatch", "slot", "msgid", "attempt")          \
	X(SPAWN, "spawned", "worker", "slot", "pid")                 \
	X(SPAWN_FAIL, "spawn failed", "slot", "err", "-")            \
	X(SIGNAL, "signal", "worker", "sig", "pid")                  \
	X(EXIT, "worker ends", "worker", "code", "status")           \
	X(REAP, "reap", "worker", "pid", "-")                        \
	X(TASK, "worker reads request", "worker", "id", "how")       \
	X(ANSWER, "worker answers", "worker", "id", "how")           \
	X(TOLD, "worker told to cancel", "worker", "msgid", "known") \
	X(STALL, "worker stands still", "worker", "ns", "-")         \
	X(KNOCK, "client connects", "client", "fd", "-")             \
	X(SEND, "client sends", "client", "id", "msgid")             \
	X(GOT, "client gets", "client", "id", "code")                \
	X(HANGUP, "client hangs up", "client", "how", "open")        \
	X(CUT, "client is cut", "client", "open", "-")               \
	X(CALL, "call", "id", "deadline", "-")                       \
	X(SQUAT, "memory taken", "order", "used", "-")               \
	X(PHASE, "phase", "phase", "requests", "open")

#define SIM_NOTE_ENUM(n, t, a, b, c) NOTE_##n,
enum sim_note_kind { SIM_NOTE_LIST(SIM_NOTE_ENUM) NOTE_NR };
#undef SIM_NOTE_ENUM

/** rnd_seed - begin a stream of chance */
void rnd_seed(u64 seed);
/** rnd - a number below @n, which is not 0 */
u64 rnd(u64 n);
/** rnd_between - from @lo to @hi, both included */
u64 rnd_between(u64 lo, u64 hi);
/** rnd_log - the same, each order of magnitude as likely as the other */
u64 rnd_log(u64 lo, u64 hi);
/** chance - true @permille times of 1000 */
bool chance(u64 permille);
/** sim_delay - how long the next thing takes, ns */
u64 sim_delay(void);
/** ev_push - something is to happen at @t */
void ev_push(u64 t, enum sim_ev_kind kind, u32 idx, u32 tag);
/** ev_next - when the next event is due; URD_NEVER if there is none */
u64 ev_next(void);
/** ev_run - let the next event happen; time goes on to it */
void ev_run(void);
/** sim_note - a line for the timeline */
void sim_note(enum sim_note_kind what, u32 a, u64 b, u64 c);
/** sim_fail - a checker found something: print it and abort */
__attribute__((noreturn)) void sim_fail(const char *file, int line, const char *what);
#define sim_check(x, what) ((x) ? (void)0 : sim_fail(__FILE__, __LINE__, what))
/** sim_report - seed, options and the last notes, to stderr */
void sim_report(void);

/* ---- chan.c: streams and descriptors ---- */

/** chan_new - a stream with one reader and one writer */
u16 chan_new(u32 cap);
/** chan_get - bytes out of it */
u32 chan_get(u16 c, u8 *dst, u32 max);
/** chan_put - bytes into it */
u32 chan_put(u16 c, const u8 *src, u32 len);
/** chan_room - bytes that fit */
u32 chan_room(u16 c);
/** chan_is_readable - are there bytes, or is it at its end? */
bool chan_is_readable(u16 c);
/** chan_is_writable - is there room, or nobody to read it? */
bool chan_is_writable(u16 c);
/** chan_close_reader, chan_close_writer - one end less */
void chan_close_reader(u16 c);
void chan_close_writer(u16 c);
/** fds_reset - none open */
void fds_reset(void);
/** fd_new - a descriptor for urd */
int fd_new(enum sim_fd_kind kind, u16 in, u16 out, u16 worker);
/** fd_get - look one up; a stale number is an error of urd's */
struct sim_fd *fd_get(int fd);
/** fd_close - close one; an op in flight on it is an error of urd's */
void fd_close(int fd);
/** fd_shut_write - shutdown(SHUT_WR) */
void fd_shut_write(int fd);
/** sim_wake - a model may go on */
void sim_wake(struct sim_who who, u64 t);

/* ---- ring_sim.c ---- */

/** ring_poke - the op with this number, plus one, may be ready now; 0 is fine */
void ring_poke(u32 op_plus_1);
/** ring_ev_op, ring_ev_deadline, ring_ev_cancel - events of ops */
void ring_ev_op(u32 idx, u32 seq);
void ring_ev_deadline(u32 idx, u64 t);
void ring_ev_cancel(u32 idx, u32 seq);
/** ring_accept - hand a connection to the accept that is armed */
void ring_accept(u32 client);
/** ring_exited - polls of this worker's pidfd may be ready */
void ring_exited(u16 worker);
/** ring_spawned - the spawner's answers may be read */
void ring_spawned(void);

/* ---- spawn_sim.c ---- */

/** spawn_ev - the spawner carries out the oldest ask */
void spawn_ev(void);
/** spawn_take - up to @max whole answers; Return: how many */
u32 spawn_take(struct urd_spawned *to, u32 max);
/** spawn_heal - faults are over: nothing takes long any more */
void spawn_heal(void);
/** spawn_has - are there answers? */
bool spawn_has(void);

/* ---- wire.c: bytes that models send and understand ---- */

/** struct sim_enc - bytes being packed */
struct sim_enc {
	u8 *p;
	u32 len;
	u32 cap;
};

/** struct sim_dec - bytes being read; @bad once something did not fit */
struct sim_dec {
	const u8 *p;
	const u8 *end;
	bool bad;
	bool lacks; /* ...because it is not there yet */
};

void enc_byte(struct sim_enc *e, u8 v);
void enc_raw(struct sim_enc *e, const void *p, u32 len);
void enc_uint(struct sim_enc *e, u64 v);
void enc_str(struct sim_enc *e, const char *s);
/** enc_blob - a bin of @len bytes that follow from @id */
void enc_blob(struct sim_enc *e, u32 id, u32 len);
/** enc_begin, enc_end - a frame header with the length of what is between */
u32 enc_begin(struct sim_enc *e, bool framed);
void enc_end(struct sim_enc *e, u32 mark, bool framed);
u32 dec_array(struct sim_dec *d);
u32 dec_map(struct sim_dec *d);
u64 dec_uint(struct sim_dec *d);
struct urd_span dec_str(struct sim_dec *d);
void dec_skip(struct sim_dec *d);
bool dec_is_nil(const struct sim_dec *d);
/** blob_is - are these the bytes that enc_blob() makes of @id? */
bool blob_is(struct urd_span s, u32 id);
/** reply_blob - length of the answer's blob */
u32 reply_blob(u32 id);

/* ---- worker.c and worker_io.c ---- */

/** worker_new - a process for a slot; Return: its number */
u16 worker_new(u32 slot, u16 pool, bool folk);
/** worker_step - let it go on */
void worker_step(u32 idx);
/** worker_wake - its next step is at @t at the latest */
void worker_wake(u16 idx, u64 t);
/** worker_die - end of the process; its heirs may keep its streams open */
void worker_die(u16 idx, int code, int status);
/** worker_heirs_gone - what kept its streams open has ended */
void worker_heirs_gone(u16 idx);
/** worker_put - forget it once it is dead, reaped and closed */
void worker_put(u16 idx);
/** workers_heal - faults are over: whoever stands still goes on */
void workers_heal(void);
/** worker_io_in, worker_io_out - its buffers */
u8 *worker_io_in(u16 idx);
u8 *worker_io_out(u16 idx);
/** worker_read_tasks - read requests; false if it died of it */
bool worker_read_tasks(u16 idx);
/** worker_read_control - read the control channel */
void worker_read_control(u16 idx);
/** worker_answer - pack what becomes of a task; false if it died of it */
bool worker_answer(u16 idx, const struct sim_task *t);
/** worker_chunk - send a part of a streamed answer */
void worker_chunk(u16 idx, struct sim_task *t);
/** worker_flush - write what is packed; false if it died of it */
bool worker_flush(u16 idx);
/** worker_say - write a few bytes to a channel other than the answers */
void worker_say(u16 idx, enum sim_worker_chan c, const struct sim_enc *e);
/** worker_close_chan - close one of its ends */
void worker_close_chan(u16 idx, enum sim_worker_chan c);

/* ---- client.c and client_io.c ---- */

/** clients_init - before the first turn */
void clients_init(void);
/** client_step - let it go on */
void client_step(u32 idx);
/** client_wake - its next step is at @t at the latest */
void client_wake(u16 idx, u64 t);
/** client_accepted - urd has a descriptor for it */
void client_accepted(u32 idx);
/** clients_heal - faults are over */
void clients_heal(void);
/** client_gone - the connection is over, and what was open on it is lost */
void client_gone(u16 idx, bool by_us);
/** client_io_tx, client_io_rx - its buffers */
u8 *client_io_tx(u16 idx);
u8 *client_io_rx(u16 idx);
/** client_pack - pack its next request */
void client_pack(u16 idx);
/** client_read_answers - look at what has arrived; false if it makes no sense */
void client_read_answers(u16 idx);
/** callers_step - requests of this process */
void callers_step(void);
/** req_new - draw the next request; Return: its id */
u32 req_new(u16 client);
/** req_answered - its caller has an answer, and the checkers look at it */
void req_chunk(u32 id, struct urd_span data);
void req_answered(u32 id, enum urd_code code, enum urd_executed executed, struct urd_span value);

/* ---- check.c ---- */

/** check_turn - what must hold after every turn */
void check_turn(void);
/** check_seen - a worker has read all of a request */
void check_seen(u32 id, u16 worker);
/** check_end - after the end: nothing is left */
void check_end(void);
/** check_coverage - print which rows of the slot's machine were never taken */
void check_coverage(void);

/* ---- world.c ---- */

/** world_run - one seed from beginning to end */
void world_run(u64 seed, bool trace);
/** world_ev - the script goes on */
void world_ev(u32 idx);
/** world_ready - have all pools all their workers? */
bool world_ready(void);

#endif /* URD_SIM_H */
