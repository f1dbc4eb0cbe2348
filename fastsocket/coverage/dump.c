// SPDX-License-Identifier: MIT
/*
 * Only in the library that `make coverage` builds. gcc's counters are written when a process exits. Processes of a server
 * end by _exit() or by a signal, or become another program. So they write their counters there, before each
 * wait, and after each accept().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <gcov.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../libfsocket/accept.h"
#include "../libfsocket/process.h"
#include "../libfsocket/waiting.h"

static void dump(void)
{
	int saved_errno = errno;

	if (!seccomp_at_start() && !seccomp_was_installed()) { /* a filter may forbid files */
		__gcov_dump();
		__gcov_reset();
	}
	errno = saved_errno;
}

/* The linker (--wrap) gives other files these in place of the functions without __wrap_. */
int __real_wait_for_events(struct wait *wait);
int __wrap_wait_for_events(struct wait *wait);
int __wrap_wait_for_events(struct wait *wait)
{
	dump();
	return __real_wait_for_events(wait);
}

int __real_accept_any(const struct acceptance *asked);
int __wrap_accept_any(const struct acceptance *asked);
int __wrap_accept_any(const struct acceptance *asked)
{
	int connection = __real_accept_any(asked);

	dump();
	return connection;
}

bool __real_polls_a_listener(const struct pollfd *fds, nfds_t n);
bool __wrap_polls_a_listener(const struct pollfd *fds, nfds_t n);
bool __wrap_polls_a_listener(const struct pollfd *fds, nfds_t n)
{
	dump();
	return __real_polls_a_listener(fds, n);
}

bool __real_selects_a_listener(int n, const fd_set *in);
bool __wrap_selects_a_listener(int n, const fd_set *in);
bool __wrap_selects_a_listener(int n, const fd_set *in)
{
	dump();
	return __real_selects_a_listener(n, in);
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
