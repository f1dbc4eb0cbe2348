/* SPDX-License-Identifier: MIT */
/* The application has passed descriptors over a Unix socket, or has got some. */
#ifndef PASSING_H
#define PASSING_H

#include <sys/socket.h>

void descriptors_sent(const struct msghdr *message);
void descriptors_received(const struct msghdr *message);

#endif
