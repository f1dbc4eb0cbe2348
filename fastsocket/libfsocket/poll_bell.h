/* SPDX-License-Identifier: MIT */
/*
 * A bell (bell.h) for threads that wait for a listener by poll() or select(): an epoll with all its clones that listen.
 * Such a thread polls the bell together with what it polls anyway. When the bell has rung, a connection waits in a
 * clone whose own worker does not sleep in epoll_wait(). The thread then asks every few milliseconds whether the
 * connection has waited for too long.
 */
#ifndef POLL_BELL_H
#define POLL_BELL_H

#include "tables.h"

/* Makes an epoll of the library, of the kind BELL; -1: that failed. */
int bell_create(void);
/*
 * Returns the bell of the listener that has this descriptor, and puts the clones that listen now into it. -1: the
 * listener has no bell. Locks the tables.
 */
int poll_bell(int fd);
/* Closes the listener's bell for poll() and select(). Needs the tables locked. */
void poll_bell_take_down(struct listener *l);

#endif
