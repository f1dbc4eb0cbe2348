// SPDX-License-Identifier: MIT
/*
 * Only in the library that `make coverage` builds. gcc's counters are written when a process exits. Processes of a server
 * end by _exit() or by a signal, or become another program. So they write their counters there, and while they wait.
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
#include "../libfsocket/waiting.h"

#define EVERY_MS 50

static void dump(void)
{
	int saved_errno = errno;

	if (!seccomp_at_start() && !seccomp_was_installed()) { /* a filter may forbid files */
		__gcov_dump();
		__gcov_reset();
	}
	errno = saved_errno;
}

static void dump_now_and_then(void)
{
	static uint64_t dumped_ms;

	if (now_ms() - dumped_ms >= EVERY_MS) {
		dumped_ms = now_ms();
		dump();
	}
}

/* The linker (--wrap) gives other files these in place of the functions without __wrap_. */
int __real_wait_for_events(struct wait *wait);
int __wrap_wait_for_events(struct wait *wait);
int __wrap_wait_for_events(struct wait *wait)
{
	dump_now_and_then();
	return __real_wait_for_events(wait);
}

bool __real_polls_a_listener(const struct pollfd *fds, nfds_t n);
bool __wrap_polls_a_listener(const struct pollfd *fds, nfds_t n);
bool __wrap_polls_a_listener(const struct pollfd *fds, nfds_t n)
{
	dump_now_and_then();
	return __real_polls_a_listener(fds, n);
}

void __real_successor_comes(bool begins);
void __wrap_successor_comes(bool begins);
void __wrap_successor_comes(bool begins)
{
	__real_successor_comes(begins);
	if (begins)
		dump();
}

__attribute__((visibility("default"), noreturn)) void _exit(int status)
{
	dump();
	for (;;)
		syscall(SYS_exit_group, status);
}
