/* SPDX-License-Identifier: MIT */
#ifndef SOCKOPT_H
#define SOCKOPT_H

#include <stdbool.h>
#include <stdint.h>

bool set_int(int fd, int level, int name, int value);
int get_int(int fd, int level, int name, int missing);
/* Identifies the socket for as long as it exists, in every process; 0: no socket. */
uint64_t cookie_of(int fd);
/* SO_NETNS_COOKIE is there since Linux 5.14. Without it the answer is no. */
bool in_same_namespace(int fd, int other);
bool is_tcp(int fd);
bool is_tcp_listener(int fd);
/* Another process may have changed it since the application listened here. */
int backlog_of(int fd);
/* How many connections wait in a listener to be accepted; 0: it cannot be told. */
uint32_t queue_of(int fd);
/* SO_LINGER or TCP_CORK, which accepted connections inherit: they say when data leaves, and what close() drops. */
bool sends_otherwise(int fd);
/* Moves a descriptor to a number that the application is unlikely to have plans for, or closes it: -1. Takes -1 too. */
int out_of_the_way(int fd);

#endif
