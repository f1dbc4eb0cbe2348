/* SPDX-License-Identifier: MIT */
/*
 * A sleeping worker is woken when a neighbour does not fetch its connections.
 *
 * A bell is an epoll of the library that holds clones of other workers and is itself in a worker's epoll. The clones are
 * in it with EPOLLEXCLUSIVE. While a clone's own worker sleeps in epoll_wait(), the kernel wakes that worker alone. A
 * worker that is stopped, or away from its loop, cannot be woken, so the kernel goes on to the bell. A bell rings once
 * (EPOLLONESHOT). Its worker then glances at the clones every few milliseconds. When nothing waits in them and nothing
 * happens there, the bell can ring again. So an idle server sleeps, and a busy one makes no system call for its bells.
 *
 * Each worker guards the clones of the next workers. EPOLLRDNORM, which applications do not ask for, tells a ring from
 * an event of the application. To a program that waits for its epoll without libc, a ring looks like an event of the
 * listener. Source: Linux fs/eventpoll.c, ep_poll_callback().
 */
#ifndef BELL_H
#define BELL_H

#include "quiet.h"
#include "tables.h"

/* With the tables locked. */
void bell_hang(struct listener *l, struct watch *watch);
void bell_take_down(struct watch *watch);
void bells_take_down(struct listener *l);
/* The application has changed what its epoll reports for the listener. */
void bell_follow(const struct watch *watch);
/* The application has closed a descriptor that is a bell's. */
void bell_is_closed(int fd);
/* The process is a copy: the bells are its parent's. */
void bells_forget(struct listener *l);

/* epoll_wait() has reported these events. Takes the rings out, and returns how many events are left. */
int bells_heard(int epfd, struct epoll_event *events, int n);
/* Glances at what the bells were rung for. Returns in how many milliseconds to glance again; -1: no bell was rung. */
int bells_answer(uint64_t patience, uint64_t now, struct quiet *quiet);

#endif
