// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>

#include "adopt.h"
#include "affinity.h"
#include "bell.h"
#include "clock.h"
#include "clone.h"
#include "follow.h"
#include "group.h"
#include "look.h"
#include "neighbours.h"
#include "process.h"
#include "real.h"
#include "rest.h"
#include "seats.h"
#include "withdrawal.h"

/*
 * A thread looks after the listeners that it watches this often, and again after the shorter time while a connection
 * waits.
 */
#define LOOK_EVERY_MS 250
#define LOOK_AGAIN_MS 20
/* Workers come one after the other. So after each change the looks begin close together, and get rarer. */
#define LOOK_AFTER_CHANGE_MS 8
/* Another thread that waits for the epoll takes the watch over if its thread has not looked for so long. */
#define ABSENT_MS 1000

THREAD_LOCAL uint64_t look_again_ms;
THREAD_LOCAL uint64_t look_every_ms;
THREAD_LOCAL uint64_t waited_ms; /* when the thread last began to wait */
THREAD_LOCAL uint32_t changes_seen;
THREAD_LOCAL int looked_at = -1; /* the epoll */
/* How many watches were added: the next wait looks at once. */
static _Atomic uint32_t additions;

static uint32_t changes(void)
{
	return workers_changes() + atomic_load_explicit(&additions, memory_order_relaxed);
}

static struct watch *watch_of(struct listener *l, int epfd, int fd)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used && l->watch[i].epfd == epfd && l->watch[i].fd == fd)
			return &l->watch[i];
	return NULL;
}

static struct watch *free_watch(struct listener *l)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (!l->watch[i].used)
			return &l->watch[i];
	return NULL;
}

static struct watch *any_watch_in(struct listener *l, int epfd)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used && l->watch[i].epfd == epfd)
			return &l->watch[i];
	return NULL;
}

static bool is_watched(struct listener *l)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used)
			return true;
	return false;
}

/*
 * An epoll refuses a socket that it already holds. Once a clone is in the epoll, the clone is the proof, because the
 * application may have closed this name of its listener and kept another one.
 */
static bool is_proved(const struct listener *l, const struct watch *watch)
{
	bool is_clone = watch->cpu >= 0 && l->cloned, has_name = find_listener(watch->fd) == l;
	int fd = is_clone ? clone_of(l, watch->cpu) : has_name ? watch->fd : l->fd;
	struct epoll_event event = { 0 };

	if (real.epoll_ctl(watch->epfd, EPOLL_CTL_ADD, fd, &event))
		return errno == EEXIST;
	real.epoll_ctl(watch->epfd, EPOLL_CTL_DEL, fd, &event);
	return !is_clone && !has_name; /* no proof, but at least it is an epoll that is still open */
}

static void unwatch_neighbours(struct listener *l, int epfd)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].neighbour_epfd) == epfd)
			clone_unwatch(l, cpu, epfd);
}

/* When the last name of a listener leaves an epoll, everything that the library has put there leaves too. */
static void remove_watch(struct listener *l, struct watch *watch)
{
	struct watch gone = *watch, *other;

	bell_take_down(watch);
	watch->used = false;
	if (gone.inherited)
		return;
	other = any_watch_in(l, gone.epfd);
	if (other && gone.cpu >= 0) {
		other->cpu = gone.cpu;
		other->thread = gone.thread;
		gone.event = other->event;
		clone_watch_again(l, gone.cpu, gone.epfd, gone.event);
		return;
	}
	if (other)
		return;
	unwatch_neighbours(l, gone.epfd);
	give_up(l, &gone);
	if (!is_watched(l))
		no_thread_waits(l->shared);
}

/*
 * Does this process accept from the clone of this thread's CPU? Then every epoll of the process has to have the clone.
 */
static bool serves_already(const struct listener *l)
{
	cpu_set_t allowed;
	int cpu = affinity_of_this_thread(&allowed) ? only_cpu(&allowed) : -1;

	return cpu >= 0 && l->cloned && atomic_load(&l->clone[cpu].watchers);
}

static void end_watch(struct listener *l, struct watch *watch)
{
	for_each_clone(cpu, l)
		if (watch->inherited && atomic_load(&l->clone[cpu].watchers))
			clone_unwatch(l, cpu, watch->epfd);
	if (watch->event.events & EPOLLEXCLUSIVE && watch->cpu >= 0 && watch->thread == myself() && l->cloned) {
		clone_unwatch(l, watch->cpu, watch->epfd);
		watch->cpu = -1;
	}
	remove_watch(l, watch);
}

void watch_rests_no_longer(void)
{
	struct watch *watch = atomic_load(&resting.watch) ? atomic_exchange(&resting.watch, NULL) : NULL;

	if (watch && watch->used && !watch->inherited)
		end_watch(resting.l, watch);
}

static void watch_deleted(struct listener *l, int epfd, int fd)
{
	struct watch *watch = watch_of(l, epfd, fd);

	watch_rests_no_longer();
	if (!watch || !watch->used)
		return;
	if (may_rest(l, watch)) {
		resting.l = l;
		resting.watch = watch;
	} else {
		end_watch(l, watch);
	}
}

static void watch_added(struct listener *l, int epfd, int fd, const struct epoll_event *event)
{
	struct watch *watch = watch_of(l, epfd, fd);

	if (watch && watch == resting.watch && watch->event.events == event->events &&
	    watch->event.data.u64 == event->data.u64) {
		resting.watch = NULL;
		return;
	}
	watch_rests_no_longer();
	if (!watch)
		watch = free_watch(l);
	if (!watch)
		return;
	bell_take_down(watch);
	*watch = (struct watch){ .used = true, .epfd = epfd, .fd = fd, .cpu = -1, .event = *event };
	set_descriptor(epfd, WATCHING);
	if ((adoption_of(l) || serves_already(l)) && !seccomp_was_installed()) {
		watch->thread = myself();
		adopt(l, watch);
	}
	if (watch->cpu >= 0)
		return;
	/* The thread that waits for the epoll may sleep for some time: clones without a worker are to wake it. */
	if (l->cloned && !seccomp_was_installed())
		neighbours_tend(l, watch, PATIENCE_MS, precise_ms());
	atomic_fetch_add(&additions, 1);
}

static void watch_modified(struct listener *l, int epfd, int fd, const struct epoll_event *event)
{
	struct watch *watch = watch_of(l, epfd, fd);

	if (!watch)
		return;
	watch->event = *event;
	bell_follow(watch);
	if (!(event->events & EPOLLIN) && !watch->inherited) { /* the application pauses the listener */
		bell_take_down(watch);
		unwatch_neighbours(l, epfd);
		give_up(l, watch);
		return;
	}
	for_each_clone(cpu, l)
		if (l->cloned && atomic_load(&l->clone[cpu].watchers))
			clone_watch_again(l, cpu, epfd, *event);
	if (watch->cpu < 0 && !watch->inherited)
		atomic_fetch_add(&additions, 1);
}

void watch_changed(struct listener *l, int epfd, int op, int fd, const struct epoll_event *event)
{
	struct held held;

	lock_tables(&held);
	if (op == EPOLL_CTL_ADD)
		watch_added(l, epfd, fd, event);
	else if (op == EPOLL_CTL_MOD)
		watch_modified(l, epfd, fd, event);
	else
		watch_deleted(l, epfd, fd);
	unlock_tables(&held);
}

/* Another descriptor of the epoll that has this watch, or -1. A descriptor with a watch of its own is another epoll. */
static int other_name(struct listener *l, const struct watch *watch)
{
	uint32_t end = atomic_load(&descriptors_end);
	struct watch other = *watch;

	for (uint32_t fd = 0; fd < end; fd++) {
		other.epfd = (int)fd;
		if (descriptor(other.epfd) == WATCHING && !any_watch_in(l, other.epfd) && is_proved(l, &other))
			return other.epfd;
	}
	return -1;
}

void epoll_is_closed(int epfd)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (struct watch *watch; listeners[i].generation && (watch = any_watch_in(&listeners[i], epfd));) {
			int name = other_name(&listeners[i], watch);

			if (!watch->inherited)
				unwatch_neighbours(&listeners[i], epfd);
			if (name >= 0)
				watch->epfd = name;
			else
				remove_watch(&listeners[i], watch);
		}
	set_descriptor(epfd, UNKNOWN);
}

bool any_adopted_here(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++)
			if (listeners[i].watch[j].used && listeners[i].watch[j].cpu >= 0)
				return true;
	return false;
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

/* The clones are withdrawn. Once a clone has stopped listening, accept() must not try it first any more. */
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
}

static bool look_at(struct listener *l, struct watch *watch, uint64_t patience, uint64_t now)
{
	bool withdrawn, soon;

	if (!is_proved(l, watch)) {
		remove_watch(l, watch);
		return false;
	}
	check_group(l, now);
	flags_changed(watch->fd);
	if (l->signals)
		refuse(l, OPTION);
	withdrawn = l->cloned && withdrawal_tend(l, now);
	if (withdrawn)
		has_withdrawn(l, watch);
	else
		reconsider(l, watch);
	if (watch->cpu >= 0)
		atomic_store(&l->shared->seat[watch->cpu].tended_ms, now);
	soon = l->cloned && neighbours_tend(l, watch, patience, now);
	if (l->cloned)
		bell_hang(l, watch);
	return soon;
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
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++) {
			struct watch *watch = &listeners[i].watch[j];

			if (!watch->used || !falls_to(watch, me, epfd, is_outer, now))
				continue;
			watch->thread = me;
			watch->looked_ms = now;
			soon = look_at(&listeners[i], watch, patience, now) || soon;
		}
	unlock_tables(&held);
	return soon;
}

/* A busy worker is patient with a neighbour that is away longer than the worker itself is from one wait to the next. */
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

int look_after(int epfd, bool idle)
{
	uint64_t now = idle ? precise_ms() : now_ms(), patience = patience_of(idle, now);
	int look_in, glance_in;

	waited_ms = now;
	if (now >= look_again_ms || atomic_load_explicit(&resting.watch, memory_order_relaxed) ||
	    changes_seen != changes() || looked_at != epfd)
		look_again_ms = now + look_interval(look(epfd, patience, now), epfd);
	look_in = (int)(look_again_ms - now);
	glance_in = bells_answer(patience, now);
	return glance_in >= 0 && glance_in < look_in ? glance_in : look_in;
}
