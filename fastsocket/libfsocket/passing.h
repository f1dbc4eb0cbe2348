/* SPDX-License-Identifier: MIT */
/* The application has passed descriptors over a Unix socket, or has received some: what the library does then. */
#ifndef PASSING_H
#define PASSING_H

#include <sys/socket.h>

void descriptors_sent(const struct msghdr *message);
void descriptors_received(const struct msghdr *message);

#endif
