/* SPDX-License-Identifier: MIT */
/*
 * Answer with FIN: what is written to an accepted connection leaves together with the FIN, in one segment.
 *
 * What the application writes is held with MSG_MORE. If the thread closes the connection before it waits, the answer
 * and the FIN leave together. If the thread waits first, the answer leaves at once, and that connection is held no
 * more. The library does so only for listeners whose connections are nearly always closed in the turn of their last
 * write (habits.h). Where the library cannot see a wait, the kernel sends what is held after its retransmission
 * timeout: 200 ms on most networks.
 *
 * Held data must not get lost. A connection that is closed with unread data is reset by the kernel, and what has not
 * left by then is dropped. So the library shuts the connection down for writing before it is closed. The connection is
 * left alone, and what is held leaves, before another process or another descriptor gets it, and before the application
 * sets an option that changes how data leaves.
 */
#ifndef ANSWER_WITH_FIN_H
#define ANSWER_WITH_FIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tables.h"

/* The flags of a connection just accepted. */
uint64_t answer_wishes(const struct listener *l);
/* MSG_MORE, if the library holds what the thread is about to send with these flags. */
int answer_flag(uint64_t state, int flags);
/* The call is over. size: what the application wanted to send. */
void answer_written(int fd, ssize_t sent, size_t size, bool held);
/* The application is about to close the connection, or to shut it down for writing. */
void answer_closes(int fd, uint64_t state);
void answer_shuts_down(int fd, uint64_t state);
/* The turn is over, and the connection is still open. */
void answer_waits(int fd, uint64_t state);
/* The application has been told the queue of the connection, or sets an option: what is held leaves first. */
void answer_leaves(int fd, uint64_t state);
/* The listener's connections are not closed where the library sees it. */
void answer_escapes(uint64_t state);

#endif
