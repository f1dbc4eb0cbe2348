// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "process.h"
#include "rest.h"

struct rest resting;

/* Since glibc 2.32. */
extern char __libc_single_threaded __attribute__((weak));

/*
 * May this watch rest? Only in a process with one thread: another thread that waits for the epoll would see the clone.
 */
bool may_rest(const struct listener *l, const struct watch *watch)
{
	return &__libc_single_threaded && __libc_single_threaded && watch->event.events & EPOLLEXCLUSIVE &&
	       watch->cpu >= 0 && l->cloned && !seccomp_was_installed();
}
