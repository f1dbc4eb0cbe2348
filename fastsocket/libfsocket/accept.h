/* SPDX-License-Identifier: MIT */
#ifndef ACCEPT_H
#define ACCEPT_H

#include "tables.h"

/* accept() or accept4() of the application, as it calls it on a listener that the library knows. */
struct acceptance {
	struct listener *l;
	int fd;
	struct sockaddr *addr;
	socklen_t *len;
	int flags;
};
int accept_any(const struct acceptance *asked);

#endif
