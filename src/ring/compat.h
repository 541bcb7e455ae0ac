/* SPDX-License-Identifier: MIT */
/*
 * Names of newer kernels than those that the distribution's headers know
 * (Debian 12: liburing 2.3, Linux 6.1).  Only numbers live here; whether the
 * running kernel has the feature behind a number is for probe.c to find out.
 */
#ifndef URD_COMPAT_H
#define URD_COMPAT_H

#include <liburing.h>

/* Linux 6.6 */
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1u << 16)
#endif

/* Linux 6.15; an enum constant in some headers, so it cannot be asked by #ifdef */
#define URD_FEAT_NO_IOWAIT (1u << 17)

#endif /* URD_COMPAT_H */
