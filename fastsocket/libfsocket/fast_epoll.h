/* SPDX-License-Identifier: MIT */
/*
 * Fast-Epoll: a connection that has just been accepted enters the epoll only when it has to wait.
 *
 * The library notes an EPOLL_CTL_ADD of such a connection, and does not make the call. When the thread goes to wait,
 * the library asks with one poll() for all connections noted since then. It reports those that have an event at once,
 * and registers the rest. A connection that was reported is registered when its thread waits again. By then a short
 * connection is closed: it never was in the epoll tree.
 *
 * The library does so only where nothing can tell the difference: one thread waits for the epoll, and it is the one
 * that accepts; the epoll is in no other epoll, and no other process has it. Anything else that happens to the
 * connection (another epoll, dup(), fork(), a Unix socket) registers it first. An edge-triggered event may come once
 * more than the kernel would send it, never less often. Where such an event could come for nothing (EPOLLOUT), and for
 * EPOLLONESHOT, the library registers the connection at once.
 */
#ifndef FAST_EPOLL_H
#define FAST_EPOLL_H

#include <poll.h>
#include <stdbool.h>
#include <sys/epoll.h>

/*
 * Call this only if settings.fast_epoll is on. Returns whether the library has done all that the application's
 * epoll_ctl() asks for, so that the caller need not make the call.
 */
bool fast_epoll_defers(int epfd, int op, int fd, const struct epoll_event *event);
/*
 * Writes up to `room` events of deferred connections, and returns how many. Registers each connection that has had its
 * event, or has none.
 */
int fast_epoll_collect(int epfd, struct epoll_event *events, int room);
/*
 * Has the kernel refused to register a connection of this thread? Then only another fast_epoll_collect() reports its
 * events.
 */
bool fast_epoll_asks_again(void);
/* The calling thread waits by poll() or select(), perhaps for epolls that are among fds. Registers what is deferred. */
void fast_epoll_polls(const struct pollfd *fds, nfds_t n);
/* The application is about to do something with this descriptor that its epoll must know of first: registers it. */
void fast_epoll_settle(int fd);
void fast_epoll_created(int epfd);
/*
 * From now on another thread or process may wait for this descriptor. If it is an epoll, nothing is deferred for it
 * again.
 */
void fast_epoll_shared(int fd);
void fast_epoll_closing(int fd);
/* The application closes what may be an epoll. Connections that were deferred for that epoll will be in no epoll. */
void fast_epoll_epoll_closing(int epfd);
void fast_epoll_before_fork(void);
void fast_epoll_forget_threads(void);

#endif
