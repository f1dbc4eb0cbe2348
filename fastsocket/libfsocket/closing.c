// SPDX-License-Identifier: MIT
#define _GNU_SOURCE

#include "adopt.h"
#include "bell.h"
#include "closing.h"
#include "fast_epoll.h"
#include "listeners.h"
#include "settings.h"
#include "tables.h"
#include "watches.h"

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
	else if (descriptor(fd) == BELL)
		bell_is_closed(fd);
	unlock_tables(&held);
}

/*
 * A child of vfork() closes its own descriptors, but in its parent's memory. So the library forgets listeners, clones,
 * epolls and deferred connections only in the process that the tables belong to. It can identify the rest again.
 */
void known_descriptor_closing(int fd)
{
	enum descriptor kind = descriptor(fd);

	if (settings.fast_epoll && (kind == PLAIN || kind == WATCHING) && tables_are_ours())
		fast_epoll_epoll_closing(fd);
	if (kind == LISTENER || kind == CLONE || kind == WATCHING || kind == BELL)
		close_listener(fd);
	else if (is_free_to_change(kind) || kind == FRESH)
		set_descriptor(fd, UNKNOWN); /* set_descriptor() ignores a thread with a descriptor table of its own */
	else if (tables_are_ours())
		fast_epoll_closing(fd);
}

/*
 * A number that the library knew is something new: the old descriptor was closed without the library's knowledge, or
 * the number is another process's.
 */
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
