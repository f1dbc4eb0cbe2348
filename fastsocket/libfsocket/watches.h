/* SPDX-License-Identifier: MIT */
/*
 * Which epolls hold a listener of the application.
 *
 * A watch is known by the epoll's and the listener's number, and numbers are used again. So before a watch is used, the
 * kernel proves that this epoll holds this listener.
 */
#ifndef WATCHES_H
#define WATCHES_H

#include "tables.h"

/* epoll_ctl() on a listener. Locks the tables. */
void watch_changed(struct listener *l, int epfd, int op, int fd, const struct epoll_event *event);
/* How many watches were added or came back: the next wait looks at once. */
uint32_t watches_additions(void);
/* The calling thread leaves the clones to other threads, because the library can do nothing for it any more. */
void watches_of_this_thread_end(void);

/* With the tables locked: */

struct watch *any_watch_in(struct listener *l, int epfd);
bool watch_is_proved(const struct listener *l, const struct watch *watch);
/* When the last name of a listener leaves an epoll, everything that the library has put there leaves too. */
void watch_remove(struct listener *l, struct watch *watch);
/* A watch that the application has ended for a moment ends. */
void watch_rests_no_longer(void);
/* The application closes an epoll, or one of its names. */
void epoll_is_closed(int epfd);
/* From now on no thread of this process tells the program of balance.h anything. Returns whether any has adopted. */
bool adopters_fall_silent(void);

#endif
