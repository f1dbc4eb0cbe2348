/* SPDX-License-Identifier: MIT */
/*
 * poll(), select() and their variants, for listeners and for epolls that have listeners. The thread wakes now and then
 * to look after the clones, as it does in waiting.h.
 */
#ifndef POLLING_H
#define POLLING_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/select.h>
#include <time.h>

/* Is there a listener that has clones among these, or an epoll that has a listener? */
bool polls_a_listener(const struct pollfd *fds, nfds_t n);
int poll_in_slices(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
bool is_set(int n, const fd_set *set);
bool selects_a_listener(int n, const fd_set *in);
int select_in_slices(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                     const sigset_t *mask) __attribute__((nonnull(2)));

#endif
