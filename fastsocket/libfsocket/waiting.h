/* SPDX-License-Identifier: MIT */
/*
 * epoll_wait() and its variants. A thread that watches listeners wakes now and then to look after them; its application
 * does not notice. Before the thread waits, the library asks for the connections that Fast-Epoll has put off.
 */
#ifndef WAITING_H
#define WAITING_H

#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <time.h>

/* The arguments of epoll_wait(), epoll_pwait() or epoll_pwait2(). */
struct wait {
	int epfd;
	struct epoll_event *events;
	int room;
	bool has_mask;
	const sigset_t *mask;
	bool in_ns;
	int timeout_ms;
	const struct timespec *timeout;
};
int wait_for_events(struct wait *wait);

#endif
