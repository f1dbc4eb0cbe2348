// SPDX-License-Identifier: MIT
/* What each descriptor is to us. One byte each, so that a call on one that we do not care for costs one load. */
#define _GNU_SOURCE
#include "fsocket.h"

_Atomic uint8_t descriptors[MAX_FDS];
_Atomic uint32_t descriptors_end;

void extend_descriptors(uint32_t end)
{
	uint32_t known = atomic_load(&descriptors_end);

	while (known < end && !atomic_compare_exchange_weak(&descriptors_end, &known, end))
		;
}

static void close_listener(int fd)
{
	struct held held;

	if (!tables_are_ours())
		return;
	lock_tables(&held);
	if (descriptor(fd) == LISTENER)
		listeners_close(fd);
	else if (descriptor(fd) == CLONE)
		clone_is_closed(fd);
	else if (descriptor(fd) == WATCHING)
		epoll_is_closed(fd);
	unlock_tables(&held);
}

/*
 * A vfork()ed child closes its own descriptors in its parent's memory. What must not be forgotten there is only closed
 * by the process whose table it is; the rest can be found out again.
 */
void known_descriptor_closing(int fd)
{
	enum descriptor kind = descriptor(fd);

	if (settings.fast_epoll && (kind == PLAIN || kind == WATCHING) && tables_are_ours())
		fast_epoll_epoll_closing(fd);
	if (kind == LISTENER || kind == CLONE || kind == WATCHING)
		close_listener(fd);
	else if (kind < LISTENER || kind == FRESH)
		set_descriptor(fd, UNKNOWN); /* but not for a thread whose numbers mean something else */
	else if (tables_are_ours())
		fast_epoll_closing(fd);
}

/* A number that was something to us names something new: it was closed behind our back, or is another process's. */
bool descriptor_is_replaced(int fd)
{
	if (!tables_are_ours())
		return false;
	known_descriptor_closing(fd);
	return true;
}

void descriptors_closing(unsigned int first, unsigned int last)
{
	unsigned int end = atomic_load_explicit(&descriptors_end, memory_order_relaxed);

	for (unsigned int fd = first; fd <= last && fd < end; fd++)
		descriptor_closing((int)fd);
}
