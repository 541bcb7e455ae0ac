// SPDX-License-Identifier: MIT
/*
 * Orphans come to the first thread of the process, workers are children of the
 * spawner's: looking at our own children only (__WNOTHREAD) sees the ones without
 * the others.  What is seen is looked at before it is collected, because a worker
 * whose own parent has died is an orphan, too, and its end belongs to its pool.
 */
#include "ring/reaper.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* glibc's name for it is newer than we are */
#ifndef __WNOTHREAD
#define __WNOTHREAD 0x20000000
#endif

/* Bytes of the list of children that are looked at in one go. */
#define CHILDREN_MAX 16384

int urd_reaper_start(void)
{
	struct sigaction sa = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };

	/* who starts us may have set it to be ignored: then nobody's end can be collected */
	if (sigaction(SIGCHLD, &sa, NULL) < 0)
		return -errno;
	return prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? -errno : 0;
}

/* The first child that has ended, or that one; 0 if there is none. */
static pid_t ended(idtype_t type, pid_t pid, int flags)
{
	siginfo_t info = { 0 };

	if (waitid(type, (id_t)pid, &info, WEXITED | WNOHANG | __WNOTHREAD | flags) < 0)
		return 0;
	return info.si_pid;
}

/*
 * A worker stands in front: the kernel shows it until its pool has collected it.
 * Ask for the others one by one.  Where the kernel has no such list they wait for
 * the next signal.
 */
static u32 collect_behind(urd_is_worker_fn is_worker, void *arg, u32 max)
{
	char text[CHILDREN_MAX];
	char *at = text, *end;
	ssize_t n = -1;
	u32 count = 0;
	int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	text[n] = '\0';
	while (count < max) {
		pid_t pid = (pid_t)strtol(at, &end, 10);

		if (end == at || *end != ' ')
			break; /* over, or cut off within a number */
		at = end;
		if (pid > 0 && !is_worker(pid, arg) && ended(P_PID, pid, 0))
			count++;
	}
	return count;
}

u32 urd_reaper_collect(urd_is_worker_fn is_worker, void *arg, u32 max)
{
	u32 count = 0;
	pid_t pid;

	while (count < max) {
		pid = ended(P_ALL, 0, WNOWAIT);
		if (!pid)
			break;
		if (is_worker(pid, arg))
			return count + collect_behind(is_worker, arg, max - count);
		if (ended(P_PID, pid, 0))
			count++;
	}
	return count;
}
