/* SPDX-License-Identifier: MIT */
/*
 * epoll_wait(), poll(), select() and their variants. A thread that watches listeners wakes now and then to look after
 * them, which its application does not notice. Connections that Fast-Epoll has put off are asked for here.
 */
#ifndef WAITING_H
#define WAITING_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/select.h>
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
/* Would the kernel take this time, and not refuse the call? */
bool is_time(const struct timespec *time);
/* Is there a listener among these, or an epoll that has one? */
bool polls_a_listener(const struct pollfd *fds, nfds_t n);
int poll_in_slices(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
bool is_set(int n, const fd_set *set);
bool selects_a_listener(int n, const fd_set *in);
int select_in_slices(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                     const sigset_t *mask) __attribute__((nonnull(2)));

#endif
