// SPDX-License-Identifier: MIT
/*
 * Only in the library that `make coverage` builds. gcc's counters are written when a process exits. Processes of a server
 * end by _exit() or by a signal, so they write their counters there, and now and then while they wait.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <gcov.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../libfsocket/clock.h"
#include "../libfsocket/process.h"

#define EVERY_MS 200

int __real_look_after(int epfd, bool idle);
int __wrap_look_after(int epfd, bool idle);

static void dump(void)
{
	int saved_errno = errno;

	if (!seccomp_at_start() && !seccomp_was_installed()) { /* a filter may forbid files */
		__gcov_dump();
		__gcov_reset();
	}
	errno = saved_errno;
}

/* The linker gives other files this in place of look_after(). */
int __wrap_look_after(int epfd, bool idle)
{
	static __thread uint64_t dumped_ms;
	int ms = __real_look_after(epfd, idle);

	if (now_ms() - dumped_ms >= EVERY_MS) {
		dumped_ms = now_ms();
		dump();
	}
	return ms;
}

__attribute__((visibility("default"), noreturn)) void _exit(int status)
{
	dump();
	for (;;)
		syscall(SYS_exit_group, status);
}
