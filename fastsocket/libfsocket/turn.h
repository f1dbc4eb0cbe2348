/* SPDX-License-Identifier: MIT */
/*
 * What the application does with a connection that it accepted, as far as the library has a part in it: see
 * answer_with_fin.h, delayed_ack.h and defer_accept.h.
 */
#ifndef TURN_H
#define TURN_H

#include <sys/types.h>

#include "connections.h"

/* A call has just returned this number. If the number still has a state, its connection was closed without libc. */
void known_turn_is_stale(int fd);
static inline void turn_renews(int fd)
{
	if (!likely(!connection(fd)))
		known_turn_is_stale(fd);
}
/* l: the listener; NULL: the library does not know it. */
void turn_accepted(int fd, struct listener *l, bool nonblocking);
/* The application has called a function that reads or writes. received, sent: its result. size: what was to be sent. */
void known_turn_has_read(int fd, ssize_t received, int flags);
static inline void turn_has_read(int fd, ssize_t received, int flags)
{
	if (!likely(!connection(fd)))
		known_turn_has_read(fd, received, flags);
}
void turn_has_written(int fd, ssize_t sent, size_t size, bool held);
/* The thread is about to wait, or to do what may take long. */
void turn_end(void);
static inline void turn_ends(void)
{
	waits_seen++;
	if (turn_is_open())
		turn_end();
}

/* A descriptor is about to be closed, by close() or by any other call. */
void known_turn_closes(int fd, uint64_t state);
static inline void turn_closes(int fd)
{
	uint64_t state = connection(fd);

	if (!likely(!state))
		known_turn_closes(fd, state);
}
/* Another descriptor, process or option is about to change what the connection is: the library leaves it alone. */
void known_turn_leaves_alone(int fd);
static inline void turn_leaves_alone(int fd)
{
	if (!likely(!connection(fd)))
		known_turn_leaves_alone(fd);
}
void turn_leaves_all_alone(void);

/* The application has set the flags of the descriptor, O_NONBLOCK perhaps. */
void turn_sets_blocking(int fd);
void turn_shuts_down(int fd, int how);
void turn_sets_option(int fd, int level, int name);
/* The application puts it into an epoll, or changes what it watches it for: it expects more to come. */
void turn_watches(int fd);
/* The application asks how much has left, or has come since. */
void turn_shows_queue(int fd);

/* A call that may block ends the thread's turn. flags: of send() or recv(). */
void turn_may_block(int fd, int flags);
/* Who reads from a connection after a write to it expects that the write has left. */
void turn_reads(int fd, int flags);

#endif
