/* SPDX-License-Identifier: MIT */
#ifndef ACCEPT_H
#define ACCEPT_H

#include "tables.h"

/* An accept() or accept4() call of the application, on a listener that the library knows. accept() has flags 0. */
struct acceptance {
	struct listener *l;
	int fd;
	struct sockaddr *addr;
	socklen_t *len;
	int flags;
};
int accept_any(const struct acceptance *asked);

#endif
