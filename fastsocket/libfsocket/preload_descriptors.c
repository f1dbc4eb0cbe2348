// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "preload.h"
#include "closing.h"
#include "fast_epoll.h"
#include "flow_deliver.h"
#include "follow.h"
#include "listeners.h"
#include "process.h"
#include "tables.h"
#include "turn.h"
#include "watches.h"

INTERPOSED int close(int fd)
{
	turn_closes(fd);
	return likely(descriptor_closes(fd)) ? REAL(close)(fd) : 0;
}

/* Before the descriptor has two numbers, the library does what it has put off for it. */
static void before_duplicate(int fd)
{
	turn_leaves_alone(fd);
	if (settings.fast_epoll) {
		fast_epoll_settle(fd);
		fast_epoll_shared(fd);
	}
	if (settings.flow_deliver)
		flow_deliver_shared(fd);
}

static int duplicated(int from, int to)
{
	enum descriptor kind = descriptor(from);

	if (to < 0)
		return to;
	turn_renews(to);
	new_descriptor(to, kind == GUARDED || kind == WATCHING ? kind : UNKNOWN);
	if (!likely(kind != LISTENER))
		listeners_duplicated(from, to);
	return to;
}

/*
 * dup2() has closed its target only if it succeeded. By then the target's number is the application's new descriptor,
 * so the library forgets what it knew of that number.
 */
static int duplicated_over(int from, int to, int result)
{
	if (result < 0 || from == to)
		return result;
	descriptor_closing(to);
	return duplicated(from, result);
}

INTERPOSED int dup(int fd)
{
	before_duplicate(fd);
	return duplicated(fd, REAL(dup)(fd));
}

INTERPOSED int dup2(int from, int to)
{
	before_duplicate(from);
	turn_leaves_alone(to);
	return duplicated_over(from, to, REAL(dup2)(from, to));
}

INTERPOSED int dup3(int from, int to, int flags)
{
	before_duplicate(from);
	turn_leaves_alone(to);
	return duplicated_over(from, to, REAL(dup3)(from, to, flags));
}

static void status_changed(int fd)
{
	if (!likely(descriptor(fd) != LISTENER))
		listener_flags_change(fd);
	if (!likely(!connection(fd)))
		turn_sets_blocking(fd);
}

/* Every argument of fcntl() fits into a pointer: libc's own definition reads it in the same way. */
#define FORWARD_FCNTL(name)                                                     \
	INTERPOSED int name(int fd, int command, ...)                           \
	{                                                                       \
		va_list arguments;                                              \
		void *argument;                                                 \
		int result;                                                     \
                                                                                \
		va_start(arguments, command);                                   \
		argument = va_arg(arguments, void *);                           \
		va_end(arguments);                                              \
		;                                                               \
		if (likely(command != F_DUPFD && command != F_DUPFD_CLOEXEC)) { \
			result = REAL(name)(fd, command, argument);             \
			if (command == F_SETFL)                                 \
				status_changed(fd);                             \
			return result;                                          \
		}                                                               \
		before_duplicate(fd);                                           \
		result = REAL(name)(fd, command, argument);                     \
		return duplicated(fd, result);                                  \
	}
FORWARD_FCNTL(fcntl)
FORWARD_FCNTL(fcntl64)

INTERPOSED int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (!likely(!connection(fd)))
		turn_shows_queue(fd);
	result = REAL(ioctl)(fd, request, argument);
	if (request == FIONBIO || request == FIOASYNC)
		status_changed(fd);
	return result;
}

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

/*
 * The calling thread gets a descriptor table of its own. That changes nothing in a process with one thread, which
 * shares its table with no other thread.
 */
static void gets_own_table(void)
{
	turn_leaves_all_alone();
	if (is_only_thread() || !tables_are_ours())
		return;
	watches_of_this_thread_end();
	has_own_table = true;
}

INTERPOSED int unshare(int flags)
{
	int result;

	if (flags & CLONE_FILES)
		turn_leaves_all_alone();
	result = REAL(unshare)(flags);
	if (result == 0 && flags & CLONE_FILES)
		gets_own_table();
	return result;
}

INTERPOSED int close_range(unsigned int first, unsigned int last, int flags)
{
	if (!REAL(close_range)) { /* glibc before 2.34 */
		errno = ENOSYS;
		return -1;
	}
	if ((unsigned int)flags & CLOSE_RANGE_UNSHARE)
		gets_own_table();
	if ((unsigned int)flags & ~CLOSE_RANGE_UNSHARE) /* with any other flag nothing is closed now */
		return REAL(close_range)(first, last, flags);
	turn_leaves_all_alone();
	return descriptors_close(first, last, flags);
}

INTERPOSED void closefrom(int first)
{
	turn_leaves_all_alone();
	if (!REAL(closefrom)) /* glibc before 2.34 has neither, so no program is linked against them */
		return;
	if (descriptors_close((unsigned int)(first < 0 ? 0 : first), UINT_MAX, 0)) /* Linux before 5.9 */
		REAL(closefrom)(first);
}
