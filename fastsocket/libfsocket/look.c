// SPDX-License-Identifier: MIT
#define _GNU_SOURCE

#include "adopt.h"
#include "balance.h"
#include "bell.h"
#include "clock.h"
#include "clone.h"
#include "follow.h"
#include "group.h"
#include "look.h"
#include "neighbours.h"
#include "pulse.h"
#include "rest.h"
#include "seats.h"
#include "watches.h"
#include "withdrawal.h"

/*
 * How often a thread looks after the listeners that it watches; and the shorter time after which it looks again while a
 * connection waits.
 */
#define LOOK_EVERY_MS 250
#define LOOK_AGAIN_MS 20
/*
 * The first interval after a change. Workers come one after the other, so after each change the looks begin close
 * together, and get rarer.
 */
#define LOOK_AFTER_CHANGE_MS 8
/*
 * If the thread of a watch has not looked for this long, another thread that waits for the epoll takes the watch over.
 */
#define ABSENT_MS 1000

THREAD_LOCAL uint64_t look_again_ms;
THREAD_LOCAL uint64_t look_every_ms;
THREAD_LOCAL uint64_t waited_ms; /* when the thread last began to wait */
THREAD_LOCAL uint32_t changes_seen;
THREAD_LOCAL int looked_at = -1; /* the epoll at which the thread looked last */

static uint32_t changes(void)
{
	return workers_changes() + watches_additions();
}

/*
 * Is this watch for the calling thread to look after? A thread looks after the watches of the epoll that it waits for.
 * A thread that waits for an outer epoll looks after watches that no thread looks after.
 */
static bool falls_to(const struct watch *watch, uint64_t thread, int epfd, bool is_outer, uint64_t now)
{
	if (watch->thread == thread || watch->inherited)
		return !watch->inherited;
	return (watch->epfd == epfd || is_outer) && (!watch->thread || now > watch->looked_ms + ABSENT_MS);
}

/*
 * The clones are withdrawn. If the worker's clone has stopped listening, the worker gives it up: accept() must not try
 * it first any more.
 */
static void has_withdrawn(struct listener *l, struct watch *watch)
{
	if (watch->cpu >= 0 && !atomic_load(&l->shared->seat[watch->cpu].listening)) {
		give_up(l, watch);
		adoption_forget(l);
	}
}

/* Each second one worker of the server asks whether another server listens on the address. */
static void check_group(struct listener *l, uint64_t now)
{
	uint64_t checked = atomic_load(&l->shared->checked_ms);
	bool ours;

	if (!(l->cloned || l->sharded) || now - checked < GROUP_CHECK_EVERY_MS ||
	    !atomic_compare_exchange_strong(&l->shared->checked_ms, &checked, now))
		return;
	ours = group_is_ours(l);
	if (!ours)
		refuse(l, NEIGHBOUR);
	else
		refuse_no_longer(l, NEIGHBOUR);
	program_comes(l);
}

/*
 * The worker goes on serving its clone. Another worker may have found no worker left just when this one came, and have
 * sent new connections to the listener: ends that.
 */
static void goes_on_serving(struct listener *l, int cpu)
{
	balance_add(l, cpu);
	if (atomic_load(&l->shared->unattended))
		unattended_ends(l);
}

/*
 * Of several workers of a clone all are woken, as all would be for a listener: the one that is woken first may be busy
 * with another client.
 */
static void wake_all_or_one(struct listener *l, struct watch *watch)
{
	if (watch->wakes_all == seat_is_shared(&l->shared->seat[watch->cpu]))
		return;
	watch->wakes_all = !watch->wakes_all;
	clone_watch_again(l, watch->cpu, watch->epfd, watch->event);
}

static bool look_at(struct listener *l, struct watch *watch, uint64_t patience, uint64_t now)
{
	bool withdrawn, soon;

	if (!watch_is_proved(l, watch)) {
		watch_remove(l, watch);
		return false;
	}
	check_group(l, now);
	flags_changed(watch->fd);
	withdrawn = l->cloned && withdrawal_tend(l, now);
	if (withdrawn)
		has_withdrawn(l, watch);
	else
		reconsider(l, watch);
	if (watch->cpu >= 0)
		atomic_store(&l->shared->seat[watch->cpu].tended_ms, now);
	if (watch->cpu >= 0 && !withdrawn)
		goes_on_serving(l, watch->cpu);
	if (watch->cpu >= 0 && l->cloned)
		wake_all_or_one(l, watch);
	pulses_count();
	soon = l->cloned && neighbours_tend(l, watch, patience, now);
	if (l->cloned)
		bell_hang(l, watch);
	return soon;
}

/* The event data of the listeners with clones that are in the epoll at which the thread looked last. */
#define MAX_REPORTED MAX_LISTENERS
THREAD_LOCAL uint64_t reported[MAX_REPORTED];
THREAD_LOCAL size_t reported_end;

static void note_report(const struct listener *l, const struct watch *watch)
{
	if (l->cloned && reported_end < MAX_REPORTED)
		reported[reported_end++] = watch->event.data.u64;
}

/*
 * Of the events with this data, drops each that has the same bits as the one before it. Returns how many events are
 * left.
 */
static int first_of(struct epoll_event *events, int n, uint64_t data)
{
	uint32_t before = 0;
	int left = 0;

	for (int i = 0; i < n; i++) {
		if (events[i].data.u64 == data) {
			if (events[i].events == before)
				continue;
			before = events[i].events;
		}
		events[left++] = events[i];
	}
	return left;
}

int each_once(struct epoll_event *events, int n)
{
	for (size_t i = 0; n > 1 && i < reported_end; i++)
		n = first_of(events, n, reported[i]);
	return n;
}

static bool is_outer_epoll(int epfd)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && any_watch_in(&listeners[i], epfd))
			return false;
	return true;
}

static bool look(int epfd, uint64_t patience, uint64_t now)
{
	uint64_t me = myself();
	bool soon = false, is_outer;
	struct held held;

	lock_tables(&held);
	watch_rests_no_longer();
	is_outer = is_outer_epoll(epfd);
	reported_end = 0;
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++) {
			struct watch *watch = &listeners[i].watch[j];

			if (watch->used && watch->epfd == epfd)
				note_report(&listeners[i], watch);
			if (!watch->used || !falls_to(watch, me, epfd, is_outer, now))
				continue;
			if (watch->thread != me)
				give_up(&listeners[i], watch); /* for the thread that looked after it */
			watch->thread = me;
			watch->looked_ms = now;
			soon = look_at(&listeners[i], watch, patience, now) || soon;
		}
	unpin_unless_adopting();
	unlock_tables(&held);
	return soon;
}

/*
 * How long a worker lets connections wait in a neighbour's clone: a busy worker for four of its own turns, but at least
 * as long as an idle one.
 */
static uint64_t patience_of(bool idle, uint64_t now)
{
	uint64_t turn = now > waited_ms ? now - waited_ms : 0;

	return idle || 4 * turn < PATIENCE_MS ? PATIENCE_MS : 4 * turn;
}

static uint64_t look_interval(bool soon, int epfd)
{
	bool changed = changes_seen != changes() || looked_at != epfd;

	changes_seen = changes();
	looked_at = epfd;
	look_every_ms = changed ? LOOK_AFTER_CHANGE_MS : 2 * look_every_ms;
	if (look_every_ms > LOOK_EVERY_MS)
		look_every_ms = LOOK_EVERY_MS;
	return soon && look_every_ms > LOOK_AGAIN_MS ? LOOK_AGAIN_MS : look_every_ms;
}

int look_after(int epfd, bool idle, struct quiet *quiet)
{
	uint64_t now = idle ? precise_ms() : now_ms(), patience = patience_of(idle, now);
	int look_in, glance_in;

	waited_ms = now;
	if (now >= look_again_ms || atomic_load_explicit(&resting.watch, memory_order_relaxed) ||
	    changes_seen != changes() || looked_at != epfd) {
		quiet_begins(quiet);
		look_again_ms = now + look_interval(look(epfd, patience, now), epfd);
	}
	look_in = (int)(look_again_ms - now);
	glance_in = bells_answer(patience, now, quiet);
	return glance_in >= 0 && glance_in < look_in ? glance_in : look_in;
}
