/* SPDX-License-Identifier: MIT */
/* The clones of a listener, one for each CPU. Functions that change a clone want the tables locked. */
#ifndef CLONE_H
#define CLONE_H

#include "tables.h"

/* Clones for all CPUs that the process may use. Returns NO_REASON, or why there are none. */
enum reason clones_make(struct listener *l);
bool clone_bind(struct listener *l, int cpu);
bool clone_add(struct listener *l, int cpu, int fd);
void clone_forget(struct listener *l, int cpu);
void clones_close(struct listener *l);
/* The clone of a CPU, or -1 where there is none. */
int clone_of(const struct listener *l, int cpu);
/* The CPU of a descriptor of the listener's clones, or -1. */
int cpu_of_clone(const struct listener *l, int fd);
/* Is the descriptor, which was a clone's, a clone still? */
bool is_clone(int fd);
bool clone_marks_cpu(int fd, int cpu);
bool clone_listens(const struct listener *l, int cpu);
/*
 * Only then may a clone begin to listen: shutdown() or connect() may have stopped the listener, and the kernel may have
 * given it another port since.
 */
bool listens_at_its_address(const struct listener *l);
/* Leave the reuseport group. The kernel resets what waits in the clone, so no worker may be able to accept from it. */
void clone_stop_listening(struct listener *l, int cpu);
bool clone_watch(struct listener *l, int cpu, int epfd, struct epoll_event event);
/*
 * The events for which a worker watches its own clone. EPOLLEXCLUSIVE is added, so that a bell (bell.h) does not ring
 * while the worker waits. The kernel refuses some events beside EPOLLEXCLUSIVE. Three of them are left out: a listener
 * never reports EPOLLPRI and EPOLLOUT, and reports EPOLLRDHUP only once it is shut down. If the application asks for
 * any other such event, its events stay as they are.
 */
struct epoll_event exclusively(struct epoll_event event);
/* The application has changed what it asks for. The kernel refuses EPOLL_CTL_MOD of an exclusive watch. */
void clone_watch_again(struct listener *l, int cpu, int epfd, struct epoll_event event);
void clone_unwatch(struct listener *l, int cpu, int epfd);
void clone_is_no_neighbour(struct listener *l, int cpu, int epfd);

#endif
