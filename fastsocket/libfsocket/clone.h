/* SPDX-License-Identifier: MIT */
/* The clones of a listener, one for each CPU. Functions that change a clone need the tables locked. */
#ifndef CLONE_H
#define CLONE_H

#include "tables.h"

/* Makes clones for all CPUs that the process may use. Returns NO_REASON, or why there are none. */
enum reason clones_make(struct listener *l);
bool clone_bind(struct listener *l, int cpu);
bool clone_add(struct listener *l, int cpu, int fd);
void clone_forget(struct listener *l, int cpu);
void clones_close(struct listener *l);
/* The descriptor of the clone of a CPU; -1 if there is none, or if the number has become another file's. */
int clone_of(const struct listener *l, int cpu);
/* The CPU of the clone that has this descriptor; -1 if the descriptor is not a clone's of this listener. */
int cpu_of_clone(const struct listener *l, int fd);
/* The tables say that this descriptor is a clone's. Is it still that clone? */
bool is_clone(int fd);
bool clone_marks_cpu(int fd, int cpu);
bool clone_listens(const struct listener *l, int cpu);
/*
 * Does the listener still listen at the address of its clones? A clone may begin to listen only then: shutdown() or
 * connect() may have stopped the listener, and the kernel may have given it another port since.
 */
bool listens_at_its_address(const struct listener *l);
/*
 * Stops a clone, which leaves the reuseport group. The kernel resets the connections that wait in the clone. So call it
 * only for a clone that is empty, or from which no worker can accept.
 */
void clone_stop_listening(struct listener *l, int cpu);
bool clone_watch(struct listener *l, int cpu, int epfd, struct epoll_event event);
/*
 * Returns the events for which a worker watches its own clone: those of the application, and EPOLLEXCLUSIVE, so that a
 * bell (bell.h) does not ring while the worker waits. The kernel refuses some events beside EPOLLEXCLUSIVE. Three of
 * them are left out: a listener never reports EPOLLPRI and EPOLLOUT, and reports EPOLLRDHUP only once it is shut down.
 * If the application asks for any other such event, its events stay as they are.
 */
struct epoll_event exclusively(struct epoll_event event);
/*
 * The application has changed the events of its listener in this epoll: takes the clone out, and puts it back with the
 * new events. The kernel refuses EPOLL_CTL_MOD for an exclusive watch.
 */
void clone_watch_again(struct listener *l, int cpu, int epfd, struct epoll_event event);
void clone_unwatch(struct listener *l, int cpu, int epfd);
void clone_is_no_neighbour(struct listener *l, int cpu, int epfd);

#endif
