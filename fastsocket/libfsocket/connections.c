// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "connections.h"

/* A turn has room for this many connections, more than it is likely to leave open. */
#define MAX_TURN 64

_Atomic uint64_t connections[MAX_FDS];
static _Atomic uint32_t connections_end;

__thread unsigned int waits_seen INITIAL_EXEC;
__thread atomic_uint turn_length INITIAL_EXEC;
THREAD_LOCAL int turn[MAX_TURN];

static uint32_t this_thread(void)
{
	static _Atomic uint32_t last;
	THREAD_LOCAL uint32_t number;

	if (!number)
		number = atomic_fetch_add(&last, 1) + 1;
	return number;
}

uint64_t known_connection(int fd)
{
	return has_own_table || atomic_load_explicit(&is_inert, memory_order_relaxed) ? 0
	                                                                              : atomic_load(&connections[fd]);
}

void connection_add(int fd, size_t listener, uint64_t flags)
{
	uint32_t end = atomic_load_explicit(&connections_end, memory_order_relaxed);

	while (!likely((uint32_t)fd < end) && !atomic_compare_exchange_weak(&connections_end, &end, (uint32_t)fd + 1))
		;
	atomic_store(&connections[fd], ACCEPTED | flags | (uint64_t)listener << LISTENER_SHIFT);
}

static bool leave_turn(int fd)
{
	unsigned int n = atomic_load_explicit(&turn_length, memory_order_relaxed);

	return n && turn[n - 1] == fd && atomic_compare_exchange_strong(&turn_length, &n, n - 1);
}

uint64_t connection_remove(int fd)
{
	leave_turn(fd);
	return atomic_exchange(&connections[fd], 0);
}

/* The state of a connection that the library leaves alone stays 0. */
uint64_t connection_set(int fd, uint64_t flags)
{
	uint64_t was = atomic_load(&connections[fd]);

	while (was && !atomic_compare_exchange_weak(&connections[fd], &was, was | flags))
		;
	return was;
}

uint64_t connection_clear(int fd, uint64_t flags)
{
	return atomic_fetch_and(&connections[fd], ~flags);
}

void connection_drop(int fd)
{
	uint64_t state = atomic_load(&connections[fd]);

	if (!(state & OF_INTEREST))
		atomic_compare_exchange_strong(&connections[fd], &state, 0);
}

size_t listener_of(uint64_t state)
{
	return state >> LISTENER_SHIFT & (MAX_LISTENERS - 1);
}

static uint32_t owner_of(uint64_t state)
{
	return (uint32_t)(state >> OWNER_SHIFT);
}

bool is_owned_here(uint64_t state)
{
	return owner_of(state) == this_thread();
}

void connections_remove_all(void (*leave)(int fd, uint64_t state))
{
	uint32_t end = atomic_load(&connections_end);

	for (uint32_t fd = 0; fd < end; fd++)
		if (atomic_load_explicit(&connections[fd], memory_order_relaxed))
			leave((int)fd, atomic_exchange(&connections[fd], 0));
}

void connections_forget(void)
{
	uint32_t end = atomic_load(&connections_end);

	for (uint32_t fd = 0; fd < end; fd++)
		atomic_store_explicit(&connections[fd], 0, memory_order_relaxed);
	atomic_store(&turn_length, 0);
}

/* Makes room in a full turn: connections that other threads have closed or taken over leave it. */
static void close_ranks(void)
{
	unsigned int n = atomic_load(&turn_length), kept = 0;

	for (unsigned int i = 0; i < n; i++)
		if (is_owned_here(atomic_load(&connections[turn[i]])))
			turn[kept++] = turn[i];
	atomic_store(&turn_length, kept);
}

bool turn_has_room(uint64_t state)
{
	if (atomic_load(&turn_length) == MAX_TURN)
		close_ranks();
	return atomic_load(&turn_length) < MAX_TURN || is_owned_here(state);
}

bool turn_is_about(int fd)
{
	return atomic_load(&turn_length) == 1 && turn[0] == fd;
}

/*
 * A signal handler may add connections of its own at any instruction. So the function takes a place first, and then
 * fills it.
 */
static void enter_turn(int fd)
{
	unsigned int place = atomic_fetch_add(&turn_length, 1);

	if (place < MAX_TURN)
		turn[place] = fd;
	else
		atomic_fetch_sub(&turn_length, 1);
}

uint64_t turn_note(int fd, uint64_t flags)
{
	uint64_t was = atomic_load(&connections[fd]), now;

	do {
		if (!was)
			return 0;
		now = (uint32_t)was | flags | (uint64_t)this_thread() << OWNER_SHIFT;
	} while (!atomic_compare_exchange_weak(&connections[fd], &was, now));
	if (!is_owned_here(was))
		enter_turn(fd);
	return was;
}

/* Only the connection that entered last can leave, because a search would cost more than it saves. */
void turn_leave(int fd)
{
	uint64_t state = atomic_load(&connections[fd]);

	if (is_owned_here(state) && !(state & (OF_TURN | OPENING)) && leave_turn(fd))
		connection_clear(fd, ~(uint64_t)UINT32_MAX);
}

static uint64_t end_turn_of(int fd)
{
	uint64_t was = atomic_load(&connections[fd]), now;

	do {
		now = is_owned_here(was) ? (uint32_t)was & ~OF_TURN : was & ~(uint64_t)HELD;
	} while (!atomic_compare_exchange_weak(&connections[fd], &was, now));
	return was;
}

/* If another thread has taken over a connection on which this thread holds data, that data leaves too. */
void turn_finish(void (*end)(int fd, uint64_t state))
{
	unsigned int n = atomic_exchange(&turn_length, 0);

	for (unsigned int i = 0; i < n; i++) {
		int fd = turn[i];
		uint64_t state = end_turn_of(fd);

		if (state)
			end(fd, state);
	}
}
