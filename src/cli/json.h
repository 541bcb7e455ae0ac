/* SPDX-License-Identifier: MIT */
/*
 * JSON and MessagePack, both ways.  What JSON lacks is written as an object with
 * one key:
 *
 *	{"$bin": "aGk="}	bytes: binary, or a string that is not UTF-8
 *	{"$ext": [5, "aGk="]}	an extension type
 *	{"$float": "nan"}	also "inf", "-inf"
 *
 * Integers stay integers (the whole range from -2^63 to 2^64 - 1), floats stay
 * floats (1.0 is not 1), keys keep their order.  A map key that is no string is
 * written as the text of its JSON.  Pure.
 */
#ifndef URD_JSON_H
#define URD_JSON_H

#include <stdio.h>

#include "base/base.h"

/** Containers within containers: those of a message less the message's own. */
#define URD_JSON_DEPTH_MAX 63u
/** A buffer for any error, in bytes. */
#define URD_JSON_ERR_MAX 256

/** struct urd_json_buf - bytes that grow; zero it to begin, free @p in the end */
struct urd_json_buf {
	u8 *p;
	size_t len;
	size_t cap;
};

/**
 * urd_json_pack - JSON text to one MessagePack value
 * @text: UTF-8, any JSON value
 * @len: its length in bytes
 * @out: the value is appended
 * @err: what is wrong with the text, one line
 * @err_len: its size
 *
 * Return: 0, -EINVAL, -E2BIG (nested too deep), -ENOMEM.
 */
int urd_json_pack(const char *text, size_t len, struct urd_json_buf *out, char *err,
		  size_t err_len) URD_MUST_CHECK;

/**
 * urd_json_print - one MessagePack value to JSON text, without a newline
 * @p: the value
 * @len: its length in bytes
 * @out: where to; the caller looks for write errors
 *
 * Return: 0, -EBADMSG (not one value), -E2BIG.
 */
int urd_json_print(const u8 *p, size_t len, FILE *out) URD_MUST_CHECK;

/** urd_base64_encode - write bytes as base64 with padding */
void urd_base64_encode(const u8 *p, size_t len, FILE *out);

/**
 * urd_base64_decode - read base64 with padding
 * @out: room for @len / 4 * 3 bytes
 *
 * Return: bytes, or -EINVAL.
 */
s64 urd_base64_decode(const char *text, size_t len, u8 *out) URD_MUST_CHECK;

#endif /* URD_JSON_H */
