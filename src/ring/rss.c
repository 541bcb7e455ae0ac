// SPDX-License-Identifier: MIT
/*
 * How much memory a process has resident, as the kernel tells it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ring/spawn.h"

u64 urd_child_rss(const struct urd_child *c)
{
	char path[32], text[128];
	const char *second;
	ssize_t n;
	int fd;

	if (c->pid <= 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/statm", c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	second = strchr(text, ' '); /* size, resident, ... in pages */
	if (!second)
		return 0;
	return strtoull(second, NULL, 10) * (u64)sysconf(_SC_PAGESIZE);
}
