/* SPDX-License-Identifier: MIT */
/*
 * A thread that waits for an epoll in which the application has a listener wakes now and then. It adopts a clone or
 * gives one up, and looks after the clones of its neighbours.
 */
#ifndef LOOK_H
#define LOOK_H

#include <stdbool.h>
#include <sys/epoll.h>

#include "quiet.h"

/*
 * The calling thread waits for this epoll: looks after what it watches, if it is time. idle: the thread has waited in
 * vain for some time. Returns the milliseconds until the next look.
 */
int look_after(int epfd, bool idle, struct quiet *quiet);
/*
 * An epoll reports each descriptor once, but to the kernel a listener and its clones are several descriptors. Takes out
 * each event that the application cannot tell from an earlier one. Returns how many events are left.
 */
int each_once(struct epoll_event *events, int n);

#endif
