// SPDX-License-Identifier: MIT
/*
 * The end of a process whose invariant broke.  Nothing here allocates, takes a
 * lock or trusts stdio, so that it works from any place, a signal handler or a
 * child between fork and exec included.
 */
#include "base/base.h"

#include <stdlib.h>
#include <unistd.h>

/* A line on its way to stderr; what does not fit is cut off. */
struct line {
	char text[512];
	size_t len;
};

static void line_add(struct line *l, const char *s)
{
	while (*s && l->len < sizeof(l->text) - 1)
		l->text[l->len++] = *s++;
}

static void line_add_number(struct line *l, unsigned int n)
{
	char digits[12];
	size_t at = sizeof(digits) - 1;

	digits[at] = '\0';
	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	line_add(l, digits + at);
}

void urd_assert_fail(const char *expr, const char *file, int line, const char *func)
{
	struct line l = { .len = 0 };
	ssize_t ret;

	line_add(&l, "urd: ");
	line_add(&l, file);
	line_add(&l, ":");
	line_add_number(&l, line > 0 ? (unsigned int)line : 0);
	line_add(&l, ": ");
	line_add(&l, func);
	line_add(&l, ": expected ");
	line_add(&l, expr);
	l.text[l.len++] = '\n';
	ret = write(STDERR_FILENO, l.text, l.len);
	/* There is nobody left to tell. */
	(void)ret;
	abort();
}
