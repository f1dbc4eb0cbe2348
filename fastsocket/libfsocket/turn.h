/* SPDX-License-Identifier: MIT */
/*
 * What the application does with a connection that it accepted or opened. The functions here tell the parts of the
 * library that need to know: see answer_with_fin.h, delayed_ack.h, opening.h and defer_accept.h.
 */
#ifndef TURN_H
#define TURN_H

#include <sys/types.h>

#include "connections.h"

/*
 * A call has just returned this number. If the number still has a state, its old connection was closed without libc,
 * and the library forgets it.
 */
void known_turn_is_stale(int fd);
static inline void turn_renews(int fd)
{
	if (!likely(!connection(fd)))
		known_turn_is_stale(fd);
}
/* The application has accepted a connection. l: its listener; NULL: the library does not know the listener. */
void turn_accepted(int fd, struct listener *l, bool nonblocking);
/*
 * The application has called a function that reads or writes. received, sent: its result. size: how much was to be
 * sent. held: was MSG_MORE added (answer_with_fin.h)?
 */
void known_turn_has_read(int fd, ssize_t received, int flags);
static inline void turn_has_read(int fd, ssize_t received, int flags)
{
	if (!likely(!connection(fd)))
		known_turn_has_read(fd, received, flags);
}
void turn_has_written(int fd, ssize_t sent, size_t size, bool held);
/* Ends the turn of the calling thread, which is about to wait, or to do what may take long. */
void turn_end(void);
static inline void turn_ends(void)
{
	waits_seen++;
	if (turn_is_open())
		turn_end();
}

/* A descriptor is about to be closed by close(). */
void known_turn_closes(int fd, uint64_t state);
static inline void turn_closes(int fd)
{
	uint64_t state = connection(fd);

	if (!likely(!state))
		known_turn_closes(fd, state);
}
/*
 * The connection gets another descriptor or another process, or its number gets a new meaning: sends what is held, and
 * leaves the connection alone.
 */
void known_turn_leaves_alone(int fd);
static inline void turn_leaves_alone(int fd)
{
	if (!likely(!connection(fd)))
		known_turn_leaves_alone(fd);
}
void turn_leaves_all_alone(void);

/* The application has set the flags of the descriptor: notes whether it has O_NONBLOCK now. */
void turn_sets_blocking(int fd);
void turn_shuts_down(int fd, int how);
void turn_sets_option(int fd, int level, int name);
/* The application puts the connection into an epoll, or changes its events there: it expects more data to come. */
void turn_watches(int fd);
/* The application is about to ask how much data has left, or how much has come: what is held leaves first. */
void turn_shows_queue(int fd);

/* Ends the thread's turn if a call on this descriptor may block. flags: of send() or recv(). */
void turn_may_block(int fd, int flags);
/*
 * The thread is about to read. A thread that reads from a connection after it wrote to it expects that the data has
 * left: sends what is held. Ends the turn if the read may block.
 */
void turn_reads(int fd, int flags);

#endif
