/* SPDX-License-Identifier: MIT */
/*
 * Between ring_sim.c, which has the calls of ring.h, and ring_run.c, which has
 * what becomes of an op.
 */
#ifndef URD_SIM_RING_H
#define URD_SIM_RING_H

#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define buf_poison(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define buf_unpoison(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define buf_poison(p, n) ((void)0)
#define buf_unpoison(p, n) ((void)0)
#endif

enum sim_op_type { T_READ, T_WRITE, T_POLL, T_ACCEPT };

/* struct sim_op - the kernel's side of an op */
struct sim_op {
	struct urd_op *op;
	u8 type;
	bool armed; /* the kernel has it */
	bool sched; /* it is ready, and its completion on the way */
	int fd;
	u32 seq;
	u8 *buf;
	u32 len;
	u32 sent; /* of a write: bytes that went */
	u32 sum;
	u64 deadline;
	u64 deadline_ev; /* when its pending event is due; URD_NEVER if none is */
};

struct sim_cqe {
	u32 idx;
	s32 res;
	bool more;
};

struct urd_ring {
	struct sim_op op[SIM_OPS];
	u32 ops_nr;
	u32 ops_max;
	bool hurry;
	u32 inline_new[SIM_OPS]; /* tried by the next turn */
	u32 inline_new_nr;
	u32 inline_done[SIM_OPS]; /* went out, not yet told */
	u32 inline_done_nr;
	struct sim_cqe cq[4 * SIM_OPS];
	u32 cq_head;
	u32 cq_nr;
	struct urd_ring_stats stats;
};

/* One world, one ring; its memory is used again by the next seed. */
extern struct urd_ring the_ring;

/** op_name - kind and sub of an op in one number, for notes */
u32 op_name(const struct urd_op *op);
/** op_place - where a stream says which op is armed on it; NULL for polls */
u32 *op_place(const struct sim_op *s);
/** op_is_ready - could it complete now? */
bool op_is_ready(const struct sim_op *s);
/** op_look - it may be ready: its completion is on the way, if it was not already */
void op_look(u32 idx);
/** op_arm - hand an op to the kernel */
void op_arm(struct urd_ring *ring, struct urd_op *op, enum sim_op_type type, int fd, u64 deadline);
/** op_post - the kernel is done with it: its result is fixed, whoever asks for what */
void op_post(u32 idx, s32 res, bool more);
/** iov_sum - a sum over the bytes that a write is of */
u32 iov_sum(const struct urd_op *op);
/** write_room - bytes of a write that may go now: of a short one to a pipe all or none */
u32 write_room(const struct sim_op *s);
/** some - how much of what could be moved is moved this time */
u32 some(u32 n);

#endif /* URD_SIM_RING_H */
