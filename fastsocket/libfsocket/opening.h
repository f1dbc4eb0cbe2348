/* SPDX-License-Identifier: MIT */
/*
 * Delayed ACK for connections that the application opens: the ACK that ends the handshake leaves with the first data.
 *
 * With TCP_QUICKACK off before connect() the kernel waits for up to 200 ms for data that takes the ACK along. Until the
 * ACK comes, a server that speaks first has no connection to speak on. So the library does so only for addresses where
 * the application nearly always writes first (habits.h), within the turn in which it is told that the connection is
 * open. If the application waits or reads instead, the ACK leaves then, and the address is left alone.
 */
#ifndef OPENING_H
#define OPENING_H

#include <stdint.h>
#include <sys/socket.h>

/* connect() is about to be called. The flags of the connection, and its address's habit; 0: it is left alone. */
uint64_t opening_begins(int fd, const struct sockaddr *addr, socklen_t len);
/* connect() has returned this. */
void opening_goes_on(int fd, uint64_t state, int result);
void opening_written(int fd, uint64_t state);
void opening_read(int fd, uint64_t state);
void opening_waits(int fd, uint64_t state);

#endif
