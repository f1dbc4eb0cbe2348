/* SPDX-License-Identifier: MIT */
#ifndef SOCKOPT_H
#define SOCKOPT_H

#include <stdbool.h>
#include <stdint.h>

bool set_int(int fd, int level, int name, int value);
int get_int(int fd, int level, int name, int missing);
/* A number that identifies the socket for as long as it exists, in every process; 0: this is no socket. */
uint64_t cookie_of(int fd);
/*
 * Are both sockets in the same network namespace? No if the kernel cannot tell: SO_NETNS_COOKIE is there since Linux
 * 5.14.
 */
bool in_same_namespace(int fd, int other);
bool is_tcp(int fd);
bool is_tcp_listener(int fd);
/*
 * The backlog of a listener, from the kernel: another process may have changed it since the application listened here.
 */
int backlog_of(int fd);
/* How many connections wait in a listener to be accepted; 0: it cannot be told. */
uint32_t queue_of(int fd);
/*
 * Has this listener SO_LINGER or TCP_CORK? Accepted connections inherit them: they say when data leaves, and what
 * close() drops.
 */
bool sends_otherwise(int fd);
/*
 * Moves a descriptor to a number that the application is unlikely to have plans for, and returns that number. -1: it
 * failed, and the descriptor is closed. Takes -1 too, and returns it.
 */
int out_of_the_way(int fd);

#endif
