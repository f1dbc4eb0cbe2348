// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "places.h"
#include "seats.h"

static bool is_abandoned(const struct shared_listener *listener)
{
	uint64_t creator = (uint64_t)atomic_load(&listener->creator);

	return !thread_is_alive(creator << 32 | creator) && workers_of(listener) == 0;
}

static struct shared_listener *take_place(struct shared_listener *listener, uint32_t expected)
{
	if (!atomic_compare_exchange_strong(&listener->in_use, &expected, expected + 1))
		return NULL;
	atomic_store(&listener->creator, getpid());
	atomic_store(&listener->tickets, 0);
	atomic_store(&listener->withdrawn_ms, 0);
	atomic_store(&listener->resume_ms, 0);
	atomic_store(&listener->unattended, 0);
	atomic_store(&listener->let_go_ms, 0);
	listener->why_not[0] = '\0';
	atomic_store(&listener->refused, 0);
	memset(listener->shard, 0, sizeof(listener->shard));
	memset(listener->waiting, 0, sizeof(listener->waiting));
	memset(listener->seat, 0, (size_t)shared_cpus() * sizeof(listener->seat[0]));
	return listener;
}

static struct shared_listener *longest_abandoned(void)
{
	struct shared_listener *longest = NULL;

	for (size_t i = 0; i < MAX_LISTENERS; i++) {
		struct shared_listener *listener = shared_listener_at(i);

		if ((!longest || atomic_load(&listener->let_go_ms) < atomic_load(&longest->let_go_ms)) &&
		    is_abandoned(listener))
			longest = listener;
	}
	return longest;
}

/*
 * in_use counts how often the place was taken. So if two processes want the same place, only one gets it. A worker may
 * still know a listener that its creator has closed, so a place is reused as late as possible.
 */
struct shared_listener *place_take(void)
{
	struct shared_listener *taken = NULL, *longest;

	for (size_t i = 0; i < MAX_LISTENERS && !taken; i++)
		if (!atomic_load(&shared_listener_at(i)->in_use))
			taken = take_place(shared_listener_at(i), 0);
	longest = taken ? NULL : longest_abandoned();
	return longest ? take_place(longest, atomic_load(&longest->in_use)) : taken;
}
