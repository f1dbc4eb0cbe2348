// SPDX-License-Identifier: MIT
#define _GNU_SOURCE

#include "clock.h"
#include "clone.h"
#include "mark.h"
#include "neighbours.h"
#include "pulse.h"
#include "real.h"
#include "seats.h"

/* A worker that runs, or waits for its CPU, may come soon. So its connections may wait for this much longer. */
#define MORE_BEHIND_WORK_MS (9 * SLOWNESS)
/*
 * How long connections wait for a worker that was asleep, or that was found to be away. The kernel wakes a sleeping
 * worker. If it neither comes nor runs by then, it is stopped.
 */
#define PATIENCE_WITH_THE_STILL_MS (2 * SLOWNESS)

static bool will_come(const struct seat *seat)
{
	return !atomic_load(&seat->failing) && seat_has_runner(seat);
}

/*
 * Does a connection wait in this clone? poll() also reports a clone that shutdown() has stopped, but with other events.
 * If poll() fails, connections may wait: an accept() that finds none does no harm.
 */
static bool holds_something(const struct listener *l, int cpu)
{
	struct pollfd queue = { .fd = clone_of(l, cpu), .events = POLLIN };
	int ready = queue.fd < 0 ? 0 : real.poll(&queue, 1, 0);

	return ready < 0 || (ready == 1 && queue.revents == POLLIN);
}

/* Have connections waited in this clone for too long, while its own worker has accepted none? */
static bool is_stuck(struct listener *l, int cpu, uint64_t patience, uint64_t now)
{
	struct clone *clone = &l->clone[cpu];
	uint64_t accepted = atomic_load(&l->shared->seat[cpu].accepted), waited;
	bool waits = holds_something(l, cpu);

	if (!waits || !clone->pending_ms || clone->pending_accepted != accepted) {
		clone->pending_ms = waits ? now : 0;
		clone->pending_accepted = accepted;
		return false;
	}
	waited = now - clone->pending_ms;
	if (waited < patience + MORE_BEHIND_WORK_MS &&
	    (waited < (pulse_is_still(cpu) ? PATIENCE_WITH_THE_STILL_MS : patience) ||
	     will_come(&l->shared->seat[cpu])))
		return false;
	pulse_is_away(cpu);
	return true;
}

bool is_neglected(const struct listener *l, int cpu)
{
	const struct seat *seat = &l->shared->seat[cpu];
	const struct clone *clone = &l->clone[cpu];

	return atomic_load(&seat->listening) &&
	       ((clone->pending_ms && atomic_load(&seat->accepted) == clone->pending_accepted &&
	         (!pulse_is_asleep(cpu) || atomic_load(&seat->failing))) ||
	        !seat_is_taken(seat));
}

bool is_abandoned(const struct listener *l, int cpu)
{
	const struct seat *seat = &l->shared->seat[cpu];

	return atomic_load(&seat->listening) && !seat_is_taken(seat);
}

bool is_own(const struct listener *l, int cpu)
{
	return atomic_load(&l->clone[cpu].watchers) && atomic_load(&l->clone[cpu].neighbour_epfd) < 0;
}

/* Watches the clone as a neighbour. Returns whether this process watches it so now. */
static bool take_care(struct listener *l, int cpu, const struct watch *watch)
{
	struct clone *clone = &l->clone[cpu];
	struct epoll_event event = watch->event;
	int none = -1;

	if (!atomic_compare_exchange_strong(&clone->neighbour_epfd, &none, watch->epfd))
		return true;
	event.events &= ~(uint32_t)EPOLLEXCLUSIVE;
	atomic_fetch_add(&l->neighbours, 1);
	mark_for_the_dead(l);
	pulse_is_away(cpu); /* its worker may have been killed while it waited */
	if (clone_of(l, cpu) >= 0 && clone_watch(l, cpu, watch->epfd, event))
		return true;
	atomic_store(&clone->neighbour_epfd, -1);
	atomic_fetch_sub(&l->neighbours, 1);
	return false;
}

bool neighbour_tend(struct listener *l, int cpu, const struct watch *watch, uint64_t patience, uint64_t now)
{
	const struct seat *seat = &l->shared->seat[cpu];
	int by = atomic_load(&l->clone[cpu].neighbour_epfd);

	if (by >= 0 && is_neglected(l, cpu))
		return true;
	if (by >= 0) {
		clone_unwatch(l, cpu, by);
		l->clone[cpu].pending_ms = 0;
		return true;
	}
	if (!atomic_load(&seat->listening))
		return false;
	if (!seat_is_taken(seat) || is_stuck(l, cpu, patience, now))
		return take_care(l, cpu, watch);
	return l->clone[cpu].pending_ms != 0;
}

bool neighbours_tend(struct listener *l, const struct watch *watch, uint64_t patience, uint64_t now)
{
	bool look_soon = false;
	int covered = 0;

	if (l->blocks || !(watch->event.events & EPOLLIN) || watch->event.events & EPOLLONESHOT)
		return false;
	for_each_clone(cpu, l) {
		covered += atomic_load(&l->shared->seat[cpu].listening) != 0;
		if (cpu != watch->cpu)
			look_soon = neighbour_tend(l, cpu, watch, patience, now) || look_soon;
	}
	atomic_store(&l->covered, covered == CPU_COUNT(&l->cpus));
	return look_soon;
}

bool neighbours_have_something(struct listener *l)
{
	for_each_clone(cpu, l)
		if (is_own(l, cpu) || is_abandoned(l, cpu) ? holds_something(l, cpu)
		                                           : is_stuck(l, cpu, PATIENCE_MS, precise_ms()))
			return true;
	return false;
}
