// SPDX-License-Identifier: MIT
/* What each descriptor is to us. One byte each, so that a call on one that we do not care for costs one load. */
#define _GNU_SOURCE
#include "fsocket.h"

_Atomic uint8_t descriptors[MAX_FDS];

/* A vfork()ed child closes its own descriptors in its parent's memory. */
static void close_listener(int fd)
{
	struct held held;

	if (!tables_are_ours())
		return;
	lock_tables(&held);
	if (descriptor(fd) == LISTENER)
		listeners_close(fd);
	else if (descriptor(fd) == CLONE)
		llt_drop_clone(fd);
	unlock_tables(&held);
}

static void closing(int fd)
{
	enum descriptor kind = descriptor(fd);

	if (kind == LISTENER || kind == CLONE)
		close_listener(fd);
	else if (kind < DEFERRED)
		set_descriptor(fd, UNKNOWN);
	else if (tables_are_ours())
		fast_epoll_closing(fd);
}

void descriptors_closing(unsigned int first, unsigned int last)
{
	for (unsigned int fd = first; fd <= last && fd < MAX_FDS; fd++)
		if (atomic_load_explicit(&descriptors[fd], memory_order_relaxed) != UNKNOWN)
			closing((int)fd);
}
