/* SPDX-License-Identifier: MIT */
/*
 * Which epolls hold a listener of the application.
 *
 * A watch is known by the numbers of the epoll and of the listener, and numbers are used again. So before the library
 * uses a watch, the kernel proves that this epoll holds this listener.
 */
#ifndef WATCHES_H
#define WATCHES_H

#include "tables.h"

/* The application has called epoll_ctl() on a listener. Locks the tables. */
void watch_changed(struct listener *l, int epfd, int op, int fd, const struct epoll_event *event);
/* How many watches were added or came back so far. When the number changes, the next wait looks at once. */
uint32_t watches_additions(void);
/*
 * The calling thread leaves the clones to other threads, because the library can do nothing for it any more. Locks the
 * tables.
 */
void watches_of_this_thread_end(void);

/* The functions from here on need the tables locked, but for the last one. */

struct watch *any_watch_in(struct listener *l, int epfd);
bool watch_is_proved(const struct listener *l, const struct watch *watch);
/*
 * Ends a watch. When the last descriptor of a listener leaves an epoll, everything that the library has put there
 * leaves too.
 */
void watch_remove(struct listener *l, struct watch *watch);
/* Ends the watch that rests (rest.h), if there is one. */
void watch_rests_no_longer(void);
/* The application closes an epoll, or one of several descriptors of it. */
void epoll_is_closed(int epfd);
/*
 * From now on no thread of this process writes its pulse for the program of balance.h. Returns whether any thread has
 * adopted a clone. The caller does not lock the tables.
 */
bool adopters_fall_silent(void);

#endif
