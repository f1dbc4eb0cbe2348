/* SPDX-License-Identifier: MIT */
/*
 * nginx with EPOLLEXCLUSIVE, and no other program, takes its listener out of its epoll and puts it back at once, every
 * 16 accepts. Meanwhile the clone rests: it stays in the epoll. So it keeps its place before the bells, because the
 * kernel wakes exclusive watchers in the order in which they came. If the worker waits before it has put the listener
 * back, the watch ends.
 */
#ifndef REST_H
#define REST_H

#include "tables.h"

/* The watch that rests: the application has taken its listener out of the epoll a moment ago. NULL: none does. */
struct rest {
	struct listener *l;
	_Atomic(struct watch *) watch;
};
extern struct rest resting;
bool may_rest(const struct listener *l, const struct watch *watch);

#endif
