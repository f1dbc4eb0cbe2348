// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>

#include "connections.h"
#include "delayed_ack.h"
#include "habits.h"
#include "opening.h"
#include "readable.h"
#include "real.h"
#include "sockopt.h"

/* Two addresses may share an entry. When the application connects to the other one, the habit there begins anew. */
#define HABITS MAX_LISTENERS
/* A host that has not answered after its thread has waited this often is far away, or not there. */
#define MOST_WAITS 8

static struct habit habits[HABITS];
static uint8_t waits[MAX_FDS];

static struct habit *habit_of(uint64_t state)
{
	return &habits[listener_of(state)];
}

/* The FNV-1a hash of the address and its port; 0: it is no address that the library knows. */
static uint32_t hash_of(const struct sockaddr *addr, socklen_t len)
{
	struct sockaddr_in6 copy = { 0 };
	const unsigned char *bytes = (const unsigned char *)&copy;
	uint32_t hash = 2166136261U;

	if (len < sizeof(struct sockaddr_in) || !is_readable(addr, len < sizeof(copy) ? len : sizeof(copy)))
		return 0;
	memcpy(&copy, addr, len < sizeof(copy) ? len : sizeof(copy));
	if (copy.sin6_family != AF_INET && copy.sin6_family != AF_INET6)
		return 0;
	for (size_t i = 0; i < sizeof(copy); i++)
		hash = (hash ^ bytes[i]) * 16777619U;
	return hash | 1;
}

uint64_t opening_begins(int fd, const struct sockaddr *addr, socklen_t len)
{
	uint32_t hash = descriptor(fd) == OPENED ? hash_of(addr, len) : 0;
	uint64_t state = OPENING | (uint64_t)(hash / 2 % HABITS) << LISTENER_SHIFT;
	struct habit *habit = habit_of(state);

	if (!hash)
		return 0;
	habit_meets(habit, hash);
	if (habit_is_firm(habit) && set_int(fd, IPPROTO_TCP, TCP_QUICKACK, 0))
		return state | DELAYED;
	return habit_is_sampled(habit) ? state : 0;
}

void opening_goes_on(int fd, uint64_t state, int result)
{
	int saved_errno = errno;

	if (result == 0 || errno == EINPROGRESS) {
		waits[fd] = 0;
		connection_add(fd, listener_of(state), (uint32_t)state | (result ? NONBLOCKING : 0));
		if (turn_has_room(0))
			turn_note(fd, result ? 0 : TOLD);
		else
			ack_at_once(fd, connection_remove(fd));
	} else {
		ack_at_once(fd, state);
	}
	errno = saved_errno;
}

void opening_written(int fd, uint64_t state)
{
	if (!(state & OPENING))
		return;
	habit_shows(habit_of(state));
	if (state & DELAYED) {
		connection_clear(fd, OPENING | TOLD);
		turn_leave(fd);
	} else {
		connection_remove(fd);
	}
}

/* Is the connection open, or has it failed? */
static bool is_open(int fd)
{
	struct pollfd asked = { .fd = fd, .events = POLLOUT };
	int saved_errno = errno, ready = real.poll(&asked, 1, 0);

	errno = saved_errno;
	return ready != 0;
}

static void fail(int fd, uint64_t state)
{
	if (state & DELAYED)
		habit_ends(habit_of(state));
	else
		habit_fails(habit_of(state));
	ack_at_once(fd, connection_remove(fd));
}

/*
 * Shall the library ask, at this wait of the thread, whether the connection is open? If it is open, this wait tells the
 * thread so, and the thread is to write before it waits again. A busy thread may wait several times before the
 * connection is open. To ask costs a system call, so the library asks twice.
 */
static bool is_asked(unsigned int waited)
{
	return waited == 2 || waited == MOST_WAITS;
}

void opening_waits(int fd, uint64_t state)
{
	unsigned int waited;

	if (!(state & OPENING) || !is_owned_here(state))
		return;
	waited = ++waits[fd];
	if (state & TOLD)
		fail(fd, state);
	else if (waited <= MOST_WAITS)
		turn_note(fd, is_asked(waited) && is_open(fd) ? TOLD : 0);
	else
		ack_at_once(fd, connection_remove(fd));
}

void opening_read(int fd, uint64_t state)
{
	if (state & OPENING)
		fail(fd, state);
}
