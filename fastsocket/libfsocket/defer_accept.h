/* SPDX-License-Identifier: MIT */
/*
 * Deferred accept: the kernel hands a connection over when its first data is there (TCP_DEFER_ACCEPT). The application
 * then accepts and reads in one go. That is for servers whose clients speak first, and only the operator knows that.
 * Where the server writes first, the library finds out, says so, and turns the option off again.
 */
#ifndef DEFER_ACCEPT_H
#define DEFER_ACCEPT_H

#include <stdint.h>

#include "tables.h"

/* The application has made this a listener. Before it gets clones. */
void defer_accept_of(struct listener *l);
/* The flags of a connection just accepted. */
uint64_t defer_wishes(const struct listener *l);
void defer_read(int fd, uint64_t state);
void defer_written(int fd, uint64_t state);

#endif
