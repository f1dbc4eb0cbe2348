/* SPDX-License-Identifier: MIT */
/*
 * Fast-Epoll: a connection that has just been accepted enters the epoll only when it has to wait.
 *
 * EPOLL_CTL_ADD of such a connection is noted, not done. When its thread goes to wait, the library asks for all
 * connections noted since then with one poll(). Those that have something are reported at once, and the rest are
 * registered. A connection that was reported is registered when its thread waits again. By then a short connection is
 * closed: it never was in the epoll tree.
 *
 * That is done only where nothing can tell the difference: one thread waits for the epoll, and it is the one that
 * accepts; the epoll is in no other epoll, and no other process has it. Anything else that happens to the connection
 * (another epoll, dup(), fork(), a Unix socket) registers it first. An edge-triggered event may come once more than the
 * kernel would send it, never less often. Where it could come for nothing (EPOLLOUT), and for EPOLLONESHOT, the
 * registration is done at once.
 */
#ifndef FAST_EPOLL_H
#define FAST_EPOLL_H

#include <poll.h>
#include <stdbool.h>
#include <sys/epoll.h>

/* Only where settings.fast_epoll. Does the application's epoll_ctl() need nothing more? */
bool fast_epoll_defers(int epfd, int op, int fd, const struct epoll_event *event);
/* Events of deferred connections, as many as fit. A connection that has had its event is registered. */
int fast_epoll_collect(int epfd, struct epoll_event *events, int room);
/* Did the kernel refuse to register a connection of this thread? Nothing but another fast_epoll_collect() reports it. */
bool fast_epoll_asks_again(void);
/* The calling thread waits for something else, perhaps for epolls among these. */
void fast_epoll_polls(const struct pollfd *fds, nfds_t n);
/* The application does something with this descriptor that its epoll must know before. */
void fast_epoll_settle(int fd);
void fast_epoll_created(int epfd);
/* From now on another thread or process may wait for this descriptor, if it is an epoll. */
void fast_epoll_shared(int fd);
void fast_epoll_closing(int fd);
/* The application closes what may be an epoll. What was deferred for it will be in no epoll. */
void fast_epoll_epoll_closing(int epfd);
void fast_epoll_before_fork(void);
void fast_epoll_forget_threads(void);

#endif
