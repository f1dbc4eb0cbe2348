/* SPDX-License-Identifier: MIT */
/*
 * Answer with FIN: what the application writes to an accepted connection leaves together with the FIN, in one segment.
 *
 * The library holds what the application writes by adding MSG_MORE. If the thread closes the connection before it
 * waits, the answer and the FIN leave together. If the thread waits first, the answer leaves at once, and the library
 * holds nothing on that connection any more. It does so only for listeners whose connections are nearly always closed
 * in the turn of their last write (habits.h). If a thread waits by a call that the library does not see, the kernel
 * sends what is held after its retransmission timeout: 200 ms on most networks.
 *
 * Held data must not get lost. If a connection is closed with unread data, the kernel resets it, and drops what has not
 * left by then. So the library shuts the connection down for writing before it is closed. Before another process or
 * another descriptor gets the connection, and before the application sets an option that changes how data leaves, the
 * library sends what is held, and leaves the connection alone from then on.
 */
#ifndef ANSWER_WITH_FIN_H
#define ANSWER_WITH_FIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tables.h"

/* The flags (connections.h) that Answer with FIN needs for a connection just accepted from this listener. */
uint64_t answer_wishes(const struct listener *l);
/* Returns MSG_MORE if the library holds what the thread is about to send with these flags; 0 if it does not. */
int answer_flag(uint64_t state, int flags);
/* A write of the application has returned `sent`. size: how much it was to write. held: was MSG_MORE added? */
void answer_written(int fd, ssize_t sent, size_t size, bool held);
/* The application is about to close the connection, or to shut it down for writing. */
void answer_closes(int fd, uint64_t state);
void answer_shuts_down(int fd, uint64_t state);
/* The thread's turn is over, and the connection is still open: sends what is held. */
void answer_waits(int fd, uint64_t state);
/*
 * Sends what is held, before the application asks how much is still unsent, sets an option, or passes the connection
 * on.
 */
void answer_leaves(int fd, uint64_t state);
/*
 * The application closes connections of this listener where the library does not see it: forgets the listener's habit.
 */
void answer_escapes(uint64_t state);

#endif
