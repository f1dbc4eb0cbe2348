/* SPDX-License-Identifier: MIT */
/*
 * nginx with EPOLLEXCLUSIVE, and no other program, takes its listener out of its epoll and puts it back at once, every
 * 16 accepts. The clone rests in the epoll meanwhile, in its place before the bells, because the kernel wakes exclusive
 * watchers in the order in which they came. If the worker waits without having put the listener back, the watch ends.
 */
#ifndef REST_H
#define REST_H

#include "tables.h"

/* The watch that rests; NULL: none does. */
struct rest {
	struct listener *l;
	_Atomic(struct watch *) watch;
};
extern struct rest resting;
bool may_rest(const struct listener *l, const struct watch *watch);

#endif
