// SPDX-License-Identifier: MIT
/*
 * Base64 as in RFC 4648, with padding, and strict: what decodes encodes to the
 * same text again.
 */
#include "cli/json.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void urd_base64_encode(const u8 *p, size_t len, FILE *out)
{
	while (len) {
		size_t n = urd_min(len, (size_t)3);
		u32 v = (u32)p[0] << 16 | (n > 1 ? (u32)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);

		putc(alphabet[v >> 18 & 63], out);
		putc(alphabet[v >> 12 & 63], out);
		putc(n > 1 ? alphabet[v >> 6 & 63] : '=', out);
		putc(n > 2 ? alphabet[v & 63] : '=', out);
		p += n;
		len -= n;
	}
}

/* Value of a digit, or -1. */
static int digit_value(char c)
{
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

s64 urd_base64_decode(const char *text, size_t len, u8 *out)
{
	size_t pad = 0;
	u8 *to = out;

	if (len % 4)
		return -EINVAL;
	while (pad < 2 && pad < len && text[len - 1 - pad] == '=')
		pad++;
	for (size_t i = 0; i < len; i += 4) {
		size_t digits = i + 4 == len ? 4 - pad : 4;
		u32 v = 0;

		for (size_t j = 0; j < digits; j++) {
			int d = digit_value(text[i + j]);

			if (d < 0)
				return -EINVAL;
			v |= (u32)d << (18 - 6 * j);
		}
		if (v & (digits == 2 ? 0xffffu : digits == 3 ? 0xffu : 0))
			return -EINVAL; /* bits that belong to no byte */
		for (size_t j = 0; j + 1 < digits; j++)
			*to++ = (u8)(v >> (16 - 8 * j));
	}
	return to - out;
}
