/* SPDX-License-Identifier: MIT */
/*
 * MessagePack-RPC envelopes.  Parsing yields spans into the payload; params,
 * results and errors are validated and stay where they are.  Writing puts a new
 * envelope *in front of* bytes that are already in place, so that a request
 * goes on to a worker, and an answer back to a client, without being copied:
 * buffers keep URD_HEADROOM bytes free before a payload.
 */
#ifndef URD_RPC_H
#define URD_RPC_H

#include <urd/wire.h>

#include "base/base.h"

/** Longest method name passed on, in bytes, pool name and slash included. */
#define URD_METHOD_MAX 255u

/**
 * Bytes kept free before each received payload.  The longest envelope that is
 * ever put before it is frame header 4, array 1, tag 1, msgid 5, method header
 * 2 (the method itself was there before), which may exceed the old envelope
 * (array 1, tag 1, msgid 1, method header 1) by 9.  32 keeps it aligned.
 */
#define URD_HEADROOM 32u

/**
 * struct urd_msg - a parsed message; spans point into the payload
 * @tag: what it is
 * @msgid: number; 0 for a notification
 * @method: requests and notifications
 * @params: requests, notifications: params.  Responses: result.  Chunks: data.
 * @error: responses: the error, one value (nil on success)
 * @meta: requests: fifth element; len 0 if absent
 * @failed: responses: error is not nil
 */
struct urd_msg {
	enum urd_tag tag;
	u32 msgid;
	struct urd_span method;
	struct urd_span params;
	struct urd_span error;
	struct urd_span meta;
	bool failed;
};

/**
 * urd_rpc_parse - parse and validate one payload
 * @p: payload, without the frame header
 * @len: its length
 * @m: filled in
 *
 * The whole payload must be exactly one well-formed message: request of 4 or 5
 * elements, response of 4, notification of 3, chunk of 3; method a str or bin of
 * at most URD_METHOD_MAX bytes; msgid a u32; meta a map; nothing after it.
 *
 * Return: 0, -EBADMSG, -E2BIG (nesting).
 */
int urd_rpc_parse(const u8 *p, u32 len, struct urd_msg *m) URD_MUST_CHECK;

/**
 * urd_rpc_salvage - get the msgid of a request that did not parse
 *
 * Return: 0 and @msgid if the payload begins like a request ([0, u32, ...]),
 * else -EBADMSG.
 */
int urd_rpc_salvage(const u8 *p, u32 len, u32 *msgid) URD_MUST_CHECK;

/**
 * urd_rpc_put_request - write a request's envelope in front of its params
 * @params: first byte of the params, with room before it
 * @body_len: bytes from @params on that belong to the frame (params and meta)
 * @msgid: number
 * @method: name; may overlap the bytes that are written over
 * @has_meta: a fifth element follows the params
 *
 * Return: first byte of the frame, at most 4 + 1 + 1 + 5 + 2 + method.len
 * before @params.
 */
u8 *urd_rpc_put_request(u8 *params, u32 body_len, u32 msgid, struct urd_span method, bool has_meta);

/**
 * urd_rpc_put_response - write a response's envelope in front of error and result
 * @body: first byte of the error, which the result follows
 * @body_len: bytes of both
 * @msgid: number
 * @framed: put a frame header before it
 *
 * Return: first byte, at most 11 before @body.
 */
u8 *urd_rpc_put_response(u8 *body, u32 body_len, u32 msgid, bool framed);

/** urd_rpc_put_chunk - the same for a chunk and its data */
u8 *urd_rpc_put_chunk(u8 *data, u32 data_len, u32 msgid, bool framed);

/**
 * struct urd_out - a bounded buffer to pack into
 * @p: bytes
 * @len: used
 * @cap: room
 * @full: something did not fit; @len is then of no meaning
 */
struct urd_out {
	u8 *p;
	u32 len;
	u32 cap;
	bool full;
};

/** urd_out_write - append bytes; has the form of msgpack_packer_write */
int urd_out_write(void *out, const char *data, size_t len);

/**
 * struct urd_fail - an error as callers see it
 * @code: what
 * @executed: whether it was run
 * @retry_after_ms: hint, 0 for none
 * @message: NUL-terminated text
 * @detail: one MessagePack value (APP: the worker's error), len 0 for none
 * @detail_text: NUL-terminated text packed as detail if @detail is absent; NULL for none
 */
struct urd_fail {
	enum urd_code code;
	enum urd_executed executed;
	u32 retry_after_ms;
	const char *message;
	struct urd_span detail;
	const char *detail_text;
};

/**
 * urd_fail_size - bytes that urd_fail_pack() needs at most for @f
 */
u32 urd_fail_size(const struct urd_fail *f);

/**
 * urd_fail_pack - pack error map and nil result, the body of a response
 * @f: the error
 * @out: room for urd_fail_size()
 *
 * Return: 0 or -ENOBUFS.
 */
int urd_fail_pack(const struct urd_fail *f, struct urd_out *out) URD_MUST_CHECK;

/**
 * urd_fail_parse - read an error value as a client or a pool sees it
 * @error: one MessagePack value
 * @code: set to its "code" if it is a map with an integer there, else 0
 * @message: set to its "message", or the string it is; len 0 if neither
 */
void urd_fail_parse(struct urd_span error, s64 *code, struct urd_span *message);

#endif /* URD_RPC_H */
