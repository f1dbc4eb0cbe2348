/* SPDX-License-Identifier: MIT */
/*
 * Deferred accept: the kernel hands a connection over when its first data is there (TCP_DEFER_ACCEPT). The application
 * then accepts and reads in one go. This is for servers whose clients speak first. Only the operator knows that, so it
 * is off unless asked for. If the server writes first all the same, the library finds out, says so, and turns the
 * option off again.
 */
#ifndef DEFER_ACCEPT_H
#define DEFER_ACCEPT_H

#include <stdint.h>

#include "tables.h"

/*
 * The application has made this socket a listener: sets the option if it is asked for. Call it before the listener gets
 * clones.
 */
void defer_accept_of(struct listener *l);
/* The flags (connections.h) that Deferred accept needs for a connection just accepted from this listener. */
uint64_t defer_wishes(const struct listener *l);
void defer_read(int fd, uint64_t state);
void defer_written(int fd, uint64_t state);

#endif
