/* SPDX-License-Identifier: MIT */
/*
 * The connections that the application accepted or opened, and what its threads did with them since they last waited.
 *
 * A turn is what a thread does between two waits. A thread that writes to a connection, or reads from it, is the
 * connection's owner until the turn ends. A call on any other descriptor costs one load.
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

/* The state of a connection; 0: the library leaves it alone. Above these bits are its listener and its owner. */
#define ACCEPTED (1U << 0)
#define NONBLOCKING (1U << 1)
#define WATCHED (1U << 2)  /* is it closed in the turn of its last write? */
#define HOLDS (1U << 3)    /* what is written to it is held */
#define HELD (1U << 4)     /* something of that has not left yet */
#define WRITTEN (1U << 5)  /* something was written in this turn */
#define DELAYED (1U << 6)  /* its ACKs wait for an answer */
#define ASKED (1U << 7)    /* is what is read from it answered in the same turn? */
#define READ (1U << 8)     /* something was read in this turn, and not answered */
#define SILENT (1U << 9)   /* nothing was read from it or written to it yet */
#define OPENING (1U << 10) /* the application has opened it, and not written to it yet */
#define TOLD (1U << 11)    /* and its thread has been told that it is open */
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
/* Returns its state before. */
uint64_t connection_remove(int fd);
uint64_t connection_set(int fd, uint64_t flags);
uint64_t connection_clear(int fd, uint64_t flags);
/* Forget the connection if no part of the library has anything left to do with it. */
void connection_drop(int fd);
size_t listener_of(uint64_t state);
bool is_owned_here(uint64_t state);
/* Forget all connections. Calls leave() for each of them, with the state that the connection had. */
void connections_remove_all(void (*leave)(int fd, uint64_t state));
void connections_forget(void);

/* Calls of the thread that may wait, as far as the library sees them. */
extern __thread unsigned int waits_seen INITIAL_EXEC;
/* What the calling thread owns. */
extern __thread atomic_uint turn_length INITIAL_EXEC;
static inline bool turn_is_open(void)
{
	return !likely(!atomic_load_explicit(&turn_length, memory_order_relaxed));
}
bool turn_has_room(uint64_t state);
bool turn_is_about(int fd);
/* The turn has nothing left to do about it, perhaps. */
void turn_leave(int fd);
/* The calling thread becomes the owner. Returns the state before; 0: it is left alone now, and stays so. */
uint64_t turn_note(int fd, uint64_t flags);
/* The thread owns nothing afterwards. Each connection is shown with its state in the turn. */
void turn_finish(void (*end)(int fd, uint64_t state));

#endif
