/* SPDX-License-Identifier: MIT */
/*
 * Delayed ACK for connections that the application opens: the ACK that ends the handshake leaves with the first data.
 *
 * If TCP_QUICKACK is off before connect(), the kernel waits for up to 200 ms for data that takes the ACK along. Until
 * the ACK comes, a server that speaks first has no connection to speak on. So the library does so only for addresses to
 * which the application nearly always writes first (habits.h), within the turn in which it is told that the connection
 * is open. If the application waits or reads instead, the ACK leaves then, and the library leaves the address alone.
 */
#ifndef OPENING_H
#define OPENING_H

#include <stdint.h>
#include <sys/socket.h>

/*
 * Call it before connect(). Returns the state that the connection gets: its flags and the number of its address's
 * habit. 0: the library leaves the connection alone.
 */
uint64_t opening_begins(int fd, const struct sockaddr *addr, socklen_t len);
/* Call it after connect(), with the state that opening_begins() returned, and with connect()'s result and errno. */
void opening_goes_on(int fd, uint64_t state, int result);
void opening_written(int fd, uint64_t state);
void opening_read(int fd, uint64_t state);
void opening_waits(int fd, uint64_t state);

#endif
