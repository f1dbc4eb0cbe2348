/* SPDX-License-Identifier: MIT */
/*
 * A bell (bell.h) for threads that wait for a listener by poll() or select(): an epoll with all its clones that listen.
 * Such a thread asks for the bell, too. When it has rung, something waits in a clone whose own worker does not sleep in
 * epoll_wait(); the thread then asks every few milliseconds whether that has waited for too long.
 */
#ifndef POLL_BELL_H
#define POLL_BELL_H

#include "tables.h"

/* An epoll of the library, of the kind BELL; -1: none. */
int bell_create(void);
/* The bell of the listener that has this descriptor, with the clones that listen now; -1: none. */
int poll_bell(int fd);
/* With the tables locked. */
void poll_bell_take_down(struct listener *l);

#endif
