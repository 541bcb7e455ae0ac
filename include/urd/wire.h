/* SPDX-License-Identifier: MIT */
/*
 * What both ends of a urd connection agree on: frame limits, message tags and
 * the error vocabulary.  No functions live here; docs/worker-protocol.md and
 * docs/client-protocol.md tell the same in words.
 */
#ifndef URD_WIRE_H
#define URD_WIRE_H

#include <stdint.h>

/** Bytes of the length that goes before each frame, u32 big-endian. */
#define URD_FRAME_HEADER 4u
/** Default and wire limit of a request frame's payload, in bytes. */
#define URD_REQUEST_MAX (16u << 20)
/** Default limit of an answer frame's payload, in bytes. */
#define URD_RESPONSE_MAX (64u << 20)
/** Limit of a frame on a worker's control channel, in bytes. */
#define URD_CONTROL_MAX (64u << 10)
/** Containers within containers that a message may have. */
#define URD_NESTING_MAX 64u
/** Version of the worker protocol, as in the ready message. */
#define URD_PROTOCOL_VERSION 1

/** First element of a message: what it is. */
enum urd_tag {
	URD_TAG_REQUEST = 0,
	URD_TAG_RESPONSE = 1,
	URD_TAG_NOTIFY = 2,
	URD_TAG_CHUNK = 3,
};

/**
 * enum urd_executed - was the request executed?
 *
 * The question that a caller needs answered before it tries again.
 */
enum urd_executed {
	URD_EXECUTED_NO,    /* no byte of it reached a worker */
	URD_EXECUTED_MAYBE, /* a worker had it, wholly or in part */
	URD_EXECUTED_YES,   /* the worker answered */
};

/*
 * The error vocabulary: X(name, number, executed, text).  Numbers and names
 * are promises to callers.  `executed' is the usual value; an error that went
 * out before any byte was sent says "no" whatever stands here.
 */
#define URD_ERRORS(X)                                                     \
	X(OK, 0, YES, "success")                                          \
	X(APP, 1, YES, "the worker answered with an error")               \
	X(BUSY, 2, NO, "the queue of the pool is full")                   \
	X(QUEUE_TIMEOUT, 3, NO, "no worker was free in time")             \
	X(EXEC_TIMEOUT, 4, MAYBE, "the worker did not answer in time")    \
	X(WORKER_DIED, 5, MAYBE, "the worker died")                       \
	X(PROTOCOL, 6, MAYBE, "the worker broke the protocol")            \
	X(TOO_LARGE, 7, NO, "the message is larger than allowed")         \
	X(DRAINING, 8, NO, "urd is shutting down")                        \
	X(POOL_FAILED, 9, NO, "the workers of the pool do not start")     \
	X(NO_POOL, 10, NO, "no such pool")                                \
	X(RATE, 11, NO, "too many requests in flight on this connection") \
	X(CANCELLED, 12, MAYBE, "the request was cancelled")              \
	X(BAD_REQUEST, 13, NO, "the request is malformed")                \
	X(IO, 14, MAYBE, "an input/output error")

#define URD_ERROR_ENUM(n, v, e, t) URD_##n = (v),
/** enum urd_code - outcome of a request; see URD_ERRORS */
enum urd_code { URD_ERRORS(URD_ERROR_ENUM) URD_CODE_NR };
#undef URD_ERROR_ENUM

#endif /* URD_WIRE_H */
