/* SPDX-License-Identifier: MIT */
/*
 * What the application watches with epoll, and looking after it. A thread that waits for an epoll in which the
 * application has a listener wakes now and then, adopts a clone or gives one up, and takes care of its neighbours'.
 *
 * A watch is known by the epoll's and the listener's number, and numbers are used again. So each look first has the
 * kernel prove that this epoll holds this listener.
 */
#ifndef LOOK_H
#define LOOK_H

#include "tables.h"

/* epoll_ctl() on a listener. Locks the tables. */
void watch_changed(struct listener *l, int epfd, int op, int fd, const struct epoll_event *event);
/* With the tables locked: a watch that the application has ended for a moment ends. */
void watch_rests_no_longer(void);
/* With the tables locked: the application closes an epoll, or one of its names. */
void epoll_is_closed(int epfd);
bool any_adopted_here(void);
/*
 * The calling thread waits for this epoll: look after what it watches. idle: it has waited in vain for some time.
 * Returns the milliseconds until the next look.
 */
int look_after(int epfd, bool idle);

#endif
