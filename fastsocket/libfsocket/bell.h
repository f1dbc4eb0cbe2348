/* SPDX-License-Identifier: MIT */
/*
 * A bell wakes a sleeping worker when a neighbour does not fetch its connections.
 *
 * A bell is an epoll of the library. It holds clones of other workers, and is itself in a worker's epoll. The clones
 * are in it with EPOLLEXCLUSIVE. While a clone's own worker sleeps in epoll_wait(), the kernel wakes that worker alone.
 * If that worker is stopped, or away from its loop, the kernel cannot wake it, and goes on to the bell. A bell rings
 * once (EPOLLONESHOT). Its worker then glances at the clones every few milliseconds. When nothing waits in them and
 * nothing happens there, the library arms the bell again. So an idle server sleeps, and a busy one makes no system call
 * for its bells.
 *
 * Each worker guards the clones of the next CPUs that have a worker. The library tells a ring from an event of the
 * application by EPOLLRDNORM, which applications do not ask for. To a program that waits for its epoll without libc, a
 * ring looks like an event of the listener. Source: Linux fs/eventpoll.c, ep_poll_callback().
 */
#ifndef BELL_H
#define BELL_H

#include "quiet.h"
#include "tables.h"

/*
 * The functions down to bells_forget() need the tables locked. bell_hang() gives a watch a bell, lets it guard the
 * right clones, and arms it. bell_take_down() removes the bell of one watch, and bells_take_down() all bells of a
 * listener.
 */
void bell_hang(struct listener *l, struct watch *watch);
void bell_take_down(struct watch *watch);
void bells_take_down(struct listener *l);
/*
 * The application has changed the event of its listener in this epoll: an armed bell reports the new data from now on.
 */
void bell_follow(const struct watch *watch);
/* The application has closed the descriptor of a bell: forgets the bell. */
void bell_is_closed(int fd);
/* In a child process: closes its descriptors of the parent's bells, and forgets the bells. */
void bells_forget(struct listener *l);

/* epoll_wait() has reported these n events. Takes out those that are rings, and returns how many events are left. */
int bells_heard(int epfd, struct epoll_event *events, int n);
/*
 * Glances at the clones for which bells have rung in the calling thread. patience: as in neighbours_tend(). Returns in
 * how many milliseconds to glance again; -1: there is nothing to glance at.
 */
int bells_answer(uint64_t patience, uint64_t now, struct quiet *quiet);

#endif
