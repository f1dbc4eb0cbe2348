/* SPDX-License-Identifier: MIT */
/*
 * Delayed ACK: the answer acknowledges what the application reads, so that no segment of its own has to.
 *
 * The kernel acknowledges the first segments of a connection at once. If TCP_QUICKACK is off on a listener, the kernel
 * waits with the ACKs of the connections that it accepts, for up to 40 ms, so that an answer can take the ACK along.
 * But a client with Nagle's algorithm, which sends its request in two small segments, must not wait for 40 ms. So if a
 * thread waits before it has answered what it read, the library acknowledges that at once, and leaves the connection
 * alone from then on.
 *
 * The library does so only for listeners whose connections are nearly always answered in the turn in which they were
 * read (habits.h), by threads that wait where the library sees it.
 */
#ifndef DELAYED_ACK_H
#define DELAYED_ACK_H

#include <stdbool.h>
#include <stdint.h>

#include "tables.h"

/* The flags (connections.h) that Delayed ACK needs for a connection just accepted from this listener. */
uint64_t ack_wishes(struct listener *l);
/* The application has read something, or has written something that leaves by the end of the turn. */
void ack_read(int fd, uint64_t state);
void ack_written(int fd, uint64_t state);
/* The application has read from the connection, has not answered, and waits for more: acknowledges what was read. */
void ack_alone(int fd, uint64_t state);
/* The thread's turn is over: acknowledges what it has read and not answered. */
void ack_waits(int fd, uint64_t state);
/* Acknowledges at once from now on, because the library looks after the connection no longer. */
void ack_at_once(int fd, uint64_t state);
/* Does the library, and not the application, delay the ACKs of this listener's connections? */
bool acks_are_delayed(const struct listener *l);

#endif
