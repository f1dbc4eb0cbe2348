// SPDX-License-Identifier: MIT
#define _GNU_SOURCE

#include "adopt.h"
#include "balance.h"
#include "bell.h"
#include "clone.h"
#include "closing.h"
#include "fast_epoll.h"
#include "listeners.h"
#include "real.h"
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
	else if (descriptor(fd) == PROGRAM)
		balance_is_closed(fd);
	unlock_tables(&held);
}

/*
 * A child of vfork() closes its own descriptors, but the tables in its memory are its parent's. So the library forgets
 * listeners, clones, epolls and deferred connections only in the process that the tables belong to. It can identify the
 * rest again.
 */
void known_descriptor_closing(int fd)
{
	enum descriptor kind = descriptor(fd);

	if (settings.fast_epoll && (kind == PLAIN || kind == WATCHING) && tables_are_ours())
		fast_epoll_epoll_closing(fd);
	if (kind == LISTENER || kind == CLONE || kind == WATCHING || kind == BELL || kind == PROGRAM)
		close_listener(fd);
	else if (is_free_to_change(kind) || kind == FRESH)
		set_descriptor(fd, UNKNOWN); /* set_descriptor() ignores a thread with a descriptor table of its own */
	else if (tables_are_ours())
		fast_epoll_closing(fd);
}

/*
 * Does this descriptor stay open, because it is the library's? An application that closes every number, or every entry
 * of /proc/self/fd, does not know the library's descriptors. They stay as long as the listener or the epoll that needs
 * them.
 */
static bool is_kept(int fd)
{
	enum descriptor kind = descriptor(fd);
	struct held held;
	bool kept;

	if ((kind != CLONE && kind != BELL && kind != PROGRAM) || !tables_are_ours())
		return false;
	lock_tables(&held);
	kept = kind != CLONE || is_clone(fd);
	unlock_tables(&held);
	return kept;
}

bool known_descriptor_closes(int fd)
{
	if (is_kept(fd))
		return false;
	known_descriptor_closing(fd);
	return true;
}

/*
 * A number that the library knew means something new: the old descriptor was closed without the library's knowledge, or
 * the number is another process's.
 */
bool descriptor_is_replaced(int fd)
{
	if (!tables_are_ours())
		return false;
	known_descriptor_closing(fd);
	return true;
}

/* Closes the range piece by piece, around the descriptors that stay. */
static int close_around_kept(unsigned int first, unsigned int last, int flags)
{
	unsigned int end = atomic_load_explicit(&descriptors_end, memory_order_relaxed), from = first;

	for (unsigned int fd = first; fd <= last && fd < end; fd++) {
		if (!is_kept((int)fd))
			continue;
		if (fd > from && real.close_range(from, fd - 1, flags))
			return -1;
		from = fd + 1;
	}
	return from > last && from > first ? 0 : real.close_range(from, last, flags);
}

int descriptors_close(unsigned int first, unsigned int last, int flags)
{
	unsigned int end = atomic_load_explicit(&descriptors_end, memory_order_relaxed);

	for (unsigned int fd = first; fd <= last && fd < end; fd++)
		descriptor_closes((int)fd);
	return close_around_kept(first, last, flags);
}
