/* SPDX-License-Identifier: MIT */
/*
 * Delayed ACK: what the application reads is acknowledged by the answer, and not by a segment of its own.
 *
 * The kernel acknowledges the first segments of a connection at once. TCP_QUICKACK off on a listener makes the
 * connections that it accepts wait for up to 40 ms, so that an answer can take the ACK along. A client with Nagle's
 * algorithm, which sends its request in two small segments, must not wait for so long. So what the application has read
 * and not answered by the time its thread waits is acknowledged then, and that connection is left alone from then on.
 *
 * The library does so only for listeners whose connections are nearly always answered in the turn in which they were
 * read (habits.h), by threads that wait where the library sees it.
 */
#ifndef DELAYED_ACK_H
#define DELAYED_ACK_H

#include <stdbool.h>
#include <stdint.h>

#include "tables.h"

/* The flags of a connection just accepted. */
uint64_t ack_wishes(struct listener *l);
/* The application has read something, or has written something that leaves by the end of the turn. */
void ack_read(int fd, uint64_t state);
void ack_written(int fd, uint64_t state);
/* What was read is not answered yet, and the application waits for more. */
void ack_alone(int fd, uint64_t state);
/* The turn is over. */
void ack_waits(int fd, uint64_t state);
/* The library looks after the connection no longer. */
void ack_at_once(int fd, uint64_t state);
/* Does the library, and not the application, delay the ACKs of this listener's connections? */
bool acks_are_delayed(const struct listener *l);

#endif
