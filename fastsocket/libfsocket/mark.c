// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "mark.h"
#include "process.h"
#include "real.h"
#include "seats.h"
#include "sockopt.h"

#define LOCK_TRIES 100 /* each a millisecond */

/*
 * The number on the listener has three parts: a bit that says that the listener has clones, a bit that says whether
 * these are withdrawn, and a process that has the clones (22 bits, proc(5)).
 */
#define MARK 0x40000000
#define WITHDRAWN 0x20000000
#define PID_MASK 0x003fffff

bool is_mark(int incoming_cpu)
{
	return incoming_cpu >= 0 && incoming_cpu & MARK;
}

static int mark_on(int fd)
{
	int mark = get_int(fd, SOL_SOCKET, SO_INCOMING_CPU, -1);

	return is_mark(mark) ? mark : 0;
}

bool is_marked(int fd)
{
	return mark_on(fd) != 0;
}

bool is_marked_withdrawn(int fd)
{
	return mark_on(fd) & WITHDRAWN;
}

pid_t marked_process(int fd)
{
	return mark_on(fd) & PID_MASK;
}

bool is_marked_by_successor(const struct listener *l)
{
	pid_t pid = marked_process(l->fd);

	return pid != getpid() && !has_process(l->shared, pid) && !process_is_dead(pid);
}

void mark_with(const struct listener *l, pid_t pid)
{
	set_int(l->fd, SOL_SOCKET, SO_INCOMING_CPU, MARK | (pid & PID_MASK));
}

void mark_as_ours(const struct listener *l)
{
	mark_with(l, getpid());
}

/*
 * A successor may take clones only from a process of its own user. Workers may have dropped their privileges, so the
 * process that listened stays in the mark while it lives and has the listener.
 */
void mark_unless_creator(const struct listener *l)
{
	int present = mark_on(l->fd);
	pid_t pid = present & PID_MASK;

	if (!(present & WITHDRAWN) && (pid != atomic_load(&l->shared->creator) || process_is_dead(pid)))
		mark_as_ours(l);
}

void mark_for_the_dead(const struct listener *l)
{
	int present = mark_on(l->fd);

	if (present && !(present & WITHDRAWN) && process_is_dead(present & PID_MASK))
		mark_as_ours(l);
}

bool mark_withdrawn(const struct listener *l)
{
	return set_int(l->fd, SOL_SOCKET, SO_INCOMING_CPU, mark_on(l->fd) | WITHDRAWN);
}

static bool set_lock(int fd, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET };

	return real.fcntl(fd, F_SETLK, &lock) == 0 || errno != EAGAIN;
}

/*
 * Several workers that are programs may get to know the same listener at the same moment, and only one is to make the
 * clones. The lock is a record lock on the socket (fcntl(2)): only a process that has the socket can hold it, and a
 * process that dies lets go of it.
 */
void lock_listener(int fd)
{
	for (int tries = 0; tries < LOCK_TRIES && !set_lock(fd, F_WRLCK); tries++)
		real.poll(NULL, 0, 1);
}

void unlock_listener(int fd)
{
	set_lock(fd, F_UNLCK);
}
