/* SPDX-License-Identifier: MIT */
/*
 * The connections that the application accepted or opened, and what its threads did with them since they last waited.
 *
 * A turn is what a thread does between two waits. A thread that writes to a connection, or reads from it, is the
 * connection's owner until the turn ends. A call on a descriptor that is no such connection costs one load.
 */
#ifndef CONNECTIONS_H
#define CONNECTIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common.h"
#include "descriptors.h"
#include "settings.h"
#include "tables.h"

/*
 * The flags in the state of a connection. The bits above them hold the numbers of its listener and of its owner. State
 * 0: the library leaves the connection alone.
 */
#define ACCEPTED (1U << 0)
#define NONBLOCKING (1U << 1)
#define WATCHED (1U << 2)  /* the library learns: is it closed in the turn of its last write? */
#define HOLDS (1U << 3)    /* what the application writes to it is held */
#define HELD (1U << 4)     /* data is held that has not left yet */
#define WRITTEN (1U << 5)  /* the application has written to it in this turn */
#define DELAYED (1U << 6)  /* the kernel delays its ACKs: they wait for an answer */
#define ASKED (1U << 7)    /* the library learns: is what is read from it answered in the same turn? */
#define READ (1U << 8)     /* the application has read from it in this turn, and not answered */
#define SILENT (1U << 9)   /* the application has neither read from it nor written to it yet */
#define OPENING (1U << 10) /* the application has opened it, and not written to it yet */
#define TOLD (1U << 11)    /* OPENING, and its thread has been told that the connection is open */
#define OF_TURN (HELD | WRITTEN | READ)
#define OF_INTEREST (HELD | WATCHED | DELAYED | ASKED | SILENT | OPENING)
#define LISTENER_SHIFT 16
#define OWNER_SHIFT 32

extern _Atomic uint64_t connections[MAX_FDS];
uint64_t known_connection(int fd);

static inline uint64_t connection(int fd)
{
	return likely(!settings.follows_connections || (unsigned int)fd >= MAX_FDS ||
	              !atomic_load_explicit(&connections[fd], memory_order_relaxed))
		       ? 0
		       : known_connection(fd);
}

void connection_add(int fd, size_t listener, uint64_t flags);
/* connection_remove() forgets a connection. It, connection_set() and connection_clear() return the state before. */
uint64_t connection_remove(int fd);
uint64_t connection_set(int fd, uint64_t flags);
uint64_t connection_clear(int fd, uint64_t flags);
/*
 * Forgets the connection if its state has no flag of OF_INTEREST: no part of the library will do anything with it
 * again.
 */
void connection_drop(int fd);
size_t listener_of(uint64_t state);
bool is_owned_here(uint64_t state);
/* Forgets all connections. Calls leave() for each of them, with the state that the connection had. */
void connections_remove_all(void (*leave)(int fd, uint64_t state));
void connections_forget(void);

/* How many calls the calling thread has made that may wait, as far as the library sees them. */
extern __thread unsigned int waits_seen INITIAL_EXEC;
/* How many connections the calling thread's turn has. */
extern __thread atomic_uint turn_length INITIAL_EXEC;
static inline bool turn_is_open(void)
{
	return !likely(!atomic_load_explicit(&turn_length, memory_order_relaxed));
}
bool turn_has_room(uint64_t state);
bool turn_is_about(int fd);
/*
 * Takes the connection out of the calling thread's turn if there is nothing left to do, and it was the last to enter.
 */
void turn_leave(int fd);
/*
 * Makes the calling thread the owner of the connection, and sets flags in its state. Returns the state before; 0: the
 * library leaves the connection alone, so nothing has changed.
 */
uint64_t turn_note(int fd, uint64_t flags);
/*
 * Ends the calling thread's turn, which is empty afterwards. Calls end() for each connection of the turn, with the
 * state that it had there.
 */
void turn_finish(void (*end)(int fd, uint64_t state));

#endif
