/* SPDX-License-Identifier: MIT */
/*
 * Shared by slot.c (the machine's actions), slot_io.c (completions) and
 * slot_msg.c (what a worker says), and nobody else's business.
 */
#ifndef URD_SLOT_PRIV_H
#define URD_SLOT_PRIV_H

#include "pool/pool.h"
#include "pool/slot.h"

/* How long the exit of a process may lag behind the end of its streams. */
#define SLOT_EOF_WAIT_NS (100 * NSEC_PER_MSEC)
/* From SIGTERM to SIGKILL for a worker that has let its grace pass. */
#define SLOT_TERM_WAIT_NS (1 * NSEC_PER_SEC)
/* Workers that a request is tried on, as long as none has seen a byte of it. */
#define SLOT_ATTEMPTS_MAX 3
/* Requests that one worker may be given at once, whatever it offers. */
#define SLOT_CONCURRENCY_MAX 1024u

/**
 * struct slot_what - what an event is about
 * @job: the job that was given, answered, cancelled or is overdue
 * @frame: the answer; taken over by REPLY_OK
 * @msg: the same, parsed
 */
struct slot_what {
	struct urd_job *job;
	struct urd_frame *frame;
	const struct urd_msg *msg;
};

/** slot_step - raise an event: the only writer of slot->state */
void slot_step(struct urd_slot *slot, enum urd_slot_event event, const struct slot_what *what);

/** slot_tags - whom a log line about the slot is about */
struct urd_tags slot_tags(const struct urd_slot *slot);

/** slot_because - remember why it leaves, unless a reason is known already */
void slot_because(struct urd_slot *slot, enum urd_why why);

/** slot_bad - it broke the protocol */
void slot_bad(struct urd_slot *slot, const char *what);

/** slot_forget - a job is no longer with the slot; drops the worker's hold */
void slot_forget(struct urd_slot *slot, struct urd_job *job);

/** slot_settled - raise CLEARED or EMPTIED if it became true */
void slot_settled(struct urd_slot *slot);

/** slot_relist - be in pool->open if and only if there is room */
void slot_relist(struct urd_slot *slot);

/** slot_write_next - begin to write the next job, if none is being written */
void slot_write_next(struct urd_slot *slot);

/** slot_open - begin to read a new process's channels and to watch it */
void slot_open(struct urd_slot *slot);

/**
 * slot_arm_task - read the task stream, guarded by the earliest deadline there is
 *
 * Does what is right for the state: nothing when nothing is awaited, or when the
 * read that is armed will do.
 */
void slot_arm_task(struct urd_slot *slot);

/** slot_starve - go on when there is memory or a chunk again */
void slot_starve(struct urd_slot *slot);

/** slot_arm_control - read the control channel */
void slot_arm_control(struct urd_slot *slot);

/** slot_arm_guard - watch the exit until slot->due_ns */
void slot_arm_guard(struct urd_slot *slot);

/** slot_close_streams - the process has ended: nothing is to stay in flight */
void slot_close_streams(struct urd_slot *slot);

/** slot_begin - put a job's bytes in the form that this worker reads */
void slot_begin(struct urd_slot *slot, struct urd_job *job);

/** slot_pack_control - what jobs have to tell, in slot->ctl_buf; Return: bytes */
u32 slot_pack_control(struct urd_slot *slot);

/** slot_task_frames - hand out what has arrived on the task stream */
void slot_task_frames(struct urd_slot *slot);

/** slot_control_frames - the same for the control channel */
void slot_control_frames(struct urd_slot *slot);

/** slot_lines - output of the worker to the log; @n bytes are new in @l */
void slot_lines(struct urd_slot *slot, struct urd_lines *l, u32 n, const char *stream);

/** slot_lines_end - log an unfinished last line */
void slot_lines_end(struct urd_slot *slot, struct urd_lines *l, const char *stream);

#endif /* URD_SLOT_PRIV_H */
