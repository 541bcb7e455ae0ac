/* SPDX-License-Identifier: MIT */
/*
 * Strangers: processes that workers started and left behind.  Whoever is PID 1,
 * or declares itself responsible, becomes their parent and has to collect them.
 * Only a program that owns its process may do so, never a library.
 */
#ifndef URD_REAPER_H
#define URD_REAPER_H

#include <sys/types.h>

#include "base/base.h"

/** typedef urd_is_worker_fn - is that process one whose end somebody else collects? */
typedef bool (*urd_is_worker_fn)(pid_t pid, void *arg);

/**
 * urd_reaper_start - become the parent of what workers leave behind
 *
 * From here on SIGCHLD tells of ends only, not of stops.  The calling thread is to
 * be the first of the process, since the kernel gives orphans to that one.
 *
 * Return: 0 or negative errno.
 */
int urd_reaper_start(void) URD_MUST_CHECK;

/**
 * urd_reaper_collect - collect strangers that have ended
 * @is_worker: asked for each; a worker is left alone
 * @arg: handed to it
 * @max: stop after so many
 *
 * Call it for each SIGCHLD, in the thread that called urd_reaper_start().
 *
 * Return: how many; if it is @max, there may be more.
 */
u32 urd_reaper_collect(urd_is_worker_fn is_worker, void *arg, u32 max);

#endif /* URD_REAPER_H */
