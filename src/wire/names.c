// SPDX-License-Identifier: MIT
/*
 * Words for the error vocabulary, generated from the one list in urd/wire.h.
 * Part of the client library's interface; the daemon uses them too.
 */
#include <urd/client.h>

#include "base/base.h"

#define CODE_NAME(n, v, e, t) [v] = #n,
#define CODE_TEXT(n, v, e, t) [v] = t,

static const char *const code_names[URD_CODE_NR] = { URD_ERRORS(CODE_NAME) };
static const char *const code_texts[URD_CODE_NR] = { URD_ERRORS(CODE_TEXT) };

URD_API const char *urd_code_name(int code)
{
	return code >= 0 && code < URD_CODE_NR ? code_names[code] : "?";
}

URD_API const char *urd_code_text(int code)
{
	return code >= 0 && code < URD_CODE_NR ? code_texts[code] : "an unknown error";
}

URD_API const char *urd_executed_name(enum urd_executed executed)
{
	switch (executed) {
	case URD_EXECUTED_NO:
		return "no";
	case URD_EXECUTED_YES:
		return "yes";
	case URD_EXECUTED_MAYBE:
		break;
	}
	/* Also for a number from elsewhere: the word that promises nothing. */
	return "maybe";
}
