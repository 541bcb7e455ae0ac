// SPDX-License-Identifier: MIT
/*
 * The calibrator: a fixed piece of arithmetic on every CPU we may use at the same
 * time, and the time of the slowest.  Run before and after a sample it tells
 * whether the machine was the same machine: a slow phase of the host and somebody
 * else's load on one of the CPUs both make it slower.
 *
 * Usage: spin       prints microseconds
 */
#include "perf.h"

#include <sched.h>
#include <sys/wait.h>

/* about 4 ms on a CPU of 2021: more than a tick, little beside a sample */
#define STEPS 4000000u

static u64 spin_us(void)
{
	u64 start = perf_now_ns();
	u64 x = start | 1;
	u32 i;

	for (i = 0; i < STEPS; i++) {
		x = x * 0x5851f42d4c957f2dull + 1;
		/* neither remove the loop nor fold several steps into one */
		__asm__ volatile("" : "+r"(x));
	}
	return (perf_now_ns() - start) / NSEC_PER_USEC;
}

static void cpu_spin(int cpu, int fd)
{
	cpu_set_t set;
	u64 us;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		_exit(1);
	us = spin_us();
	_exit(write(fd, &us, sizeof(us)) == sizeof(us) ? 0 : 1);
}

int main(void)
{
	u64 us, worst_us = 0;
	cpu_set_t set;
	int fd[2];
	int cpu;

	if (sched_getaffinity(0, sizeof(set), &set) || pipe2(fd, O_CLOEXEC))
		perf_die("spin: no CPUs or no pipe");
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		if (!fork())
			cpu_spin(cpu, fd[1]);
	}
	close(fd[1]);
	while (read(fd[0], &us, sizeof(us)) == sizeof(us))
		worst_us = urd_max(worst_us, us);
	while (wait(NULL) > 0)
		;
	if (!worst_us)
		perf_die("spin: no CPU answered");
	printf("%" PRIu64 "\n", worst_us);
	return 0;
}
