/* SPDX-License-Identifier: MIT */
/* The next definition of each call in calls.def: libc's, or that of another preloaded library. */
#ifndef REAL_H
#define REAL_H

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "common.h"

struct real_calls {
#define CALL(type, name, parameters) type(*name) parameters;
#include "calls.def"
#undef CALL
} __attribute__((aligned(64)));
extern struct real_calls real;
void find_real_calls(void);

/*
 * Returns the table of libc's calls. Looks them up first if that has not happened yet: another library's constructor
 * may call ours before the library's own constructor has run.
 */
static inline struct real_calls *real_calls(void)
{
	if (!likely(real.close))
		find_real_calls();
	return &real;
}

#endif
