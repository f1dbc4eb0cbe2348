// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>

#include "adopt.h"
#include "affinity.h"
#include "bell.h"
#include "clock.h"
#include "clone.h"
#include "neighbours.h"
#include "process.h"
#include "pulse.h"
#include "real.h"
#include "rest.h"
#include "seats.h"
#include "watches.h"
#include "withdrawal.h"

static _Atomic uint32_t additions;

uint32_t watches_additions(void)
{
	return atomic_load_explicit(&additions, memory_order_relaxed);
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

struct watch *any_watch_in(struct listener *l, int epfd)
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
 * Which socket proves that the epoll of this watch still is that epoll. Once a clone is in the epoll, the clone is the
 * proof: the application may have closed this descriptor of its listener and kept another one.
 */
static int held_by(const struct listener *l, const struct watch *watch)
{
	if (watch->cpu >= 0 && l->cloned)
		return clone_of(l, watch->cpu);
	return find_listener(watch->fd) == l ? watch->fd : l->fd;
}

static bool add(int epfd, int fd)
{
	struct epoll_event event = { 0 };

	return !real.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

static bool take_out(int epfd, int fd)
{
	struct epoll_event unused = { 0 };

	return !real.epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &unused);
}

/* Does the epoll still hold the socket that held_by() tells? An epoll refuses a socket that it already holds. */
bool watch_is_proved(const struct listener *l, const struct watch *watch)
{
	int fd = held_by(l, watch);
	bool can_be_proved = (watch->cpu >= 0 && l->cloned) || fd == watch->fd;

	if (!add(watch->epfd, fd))
		return errno == EEXIST;
	take_out(watch->epfd, fd);
	return !can_be_proved; /* at least it is an epoll that is still open */
}

static void unwatch_neighbours(struct listener *l, int epfd)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].neighbour_epfd) == epfd)
			clone_unwatch(l, cpu, epfd);
}

/* Takes out of an epoll what the library has put there. The application's own listener stays in the epoll. */
static void stop_serving(struct listener *l, struct watch *watch)
{
	bell_take_down(watch);
	unwatch_neighbours(l, watch->epfd);
	give_up(l, watch);
}

void watches_of_this_thread_end(void)
{
	uint64_t me = myself();
	struct held held;

	lock_tables(&held);
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++)
			if (listeners[i].watch[j].used && listeners[i].watch[j].thread == me)
				stop_serving(&listeners[i], &listeners[i].watch[j]);
	unlock_tables(&held);
}

void watch_remove(struct listener *l, struct watch *watch)
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
	int cpu;

	affinity_of_this_thread(&allowed);
	cpu = only_cpu(&allowed);
	return cpu >= 0 && l->cloned && atomic_load(&l->clone[cpu].watchers);
}

/* With EPOLLONESHOT the listener gets no clones: a clone in the same epoll would be reported once, too. */
static void refuse_one_shot(struct listener *l, const struct epoll_event *event)
{
	if (event->events & EPOLLONESHOT)
		refuse(l, ONE_SHOT);
}

/* A seccomp filter is installed, but allows what the application has just called: puts the worker's clone back. */
static void put_clone_back(struct listener *l, struct watch *watch)
{
	const struct adoption *mine = adoption_of(l);

	if (mine && l->cloned && clone_watch(l, mine->cpu, watch->epfd, exclusively(watch->event)))
		watch->cpu = mine->cpu;
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
	watch_remove(l, watch);
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
	refuse_one_shot(l, event);
	if (seccomp_was_installed()) {
		put_clone_back(l, watch);
		return;
	}
	if (adoption_of(l) || serves_already(l)) {
		watch->thread = myself();
		adopt(l, watch);
	}
	if (watch->cpu >= 0)
		return;
	/* The thread that waits for the epoll may sleep for some time: clones without a worker are to wake it. */
	if (l->cloned)
		neighbours_tend(l, watch, PATIENCE_MS, precise_ms());
	atomic_fetch_add(&additions, 1);
}

static void watch_modified(struct listener *l, int epfd, int fd, const struct epoll_event *event)
{
	struct watch *watch = watch_of(l, epfd, fd);

	if (!watch)
		return;
	watch->event = *event;
	refuse_one_shot(l, event);
	bell_follow(watch);
	if (!(event->events & EPOLLIN) && !watch->inherited) { /* the application pauses the listener */
		stop_serving(l, watch);
		return;
	}
	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].watchers))
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

static bool is_only_watch(const struct listener *l, const struct watch *watch)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used && &l->watch[i] != watch)
			return false;
	return true;
}

/*
 * Is epfd another descriptor of the epoll that has this watch? Two epolls may hold the same socket. But what is taken
 * out of one epoll is gone under both of its descriptors. After dup2() the first descriptor is gone, and the second is
 * believed.
 */
static bool is_same_epoll(const struct listener *l, const struct watch *watch, int epfd)
{
	struct epoll_event event = watch->cpu >= 0 && !watch->wakes_all ? exclusively(watch->event) : watch->event;
	int fd = held_by(l, watch);
	bool same;

	if (!take_out(watch->epfd, fd))
		return true;
	same = add(epfd, fd);
	if (same)
		take_out(epfd, fd);
	real.epoll_ctl(watch->epfd, EPOLL_CTL_ADD, fd, &event);
	return same;
}

/* Another descriptor of the epoll that has this watch, or -1. A descriptor with a watch of its own is another epoll. */
static int other_name(struct listener *l, const struct watch *watch)
{
	uint32_t end = atomic_load(&descriptors_end);
	struct watch other = *watch;

	for (uint32_t fd = 0; fd < end; fd++) {
		other.epfd = (int)fd;
		if (descriptor(other.epfd) == WATCHING && !any_watch_in(l, other.epfd) && watch_is_proved(l, &other) &&
		    (watch->inherited ? is_only_watch(l, watch) : is_same_epoll(l, watch, other.epfd)))
			return other.epfd;
	}
	return -1;
}

static bool is_watched_by(const struct listener *l, uint64_t thread)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used && l->watch[i].thread == thread)
			return true;
	return false;
}

/* The calling thread has closed an epoll, perhaps the last one by which it watched what it has adopted. */
static void forget_unwatched(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && adoption_of(&listeners[i]) && !is_watched_by(&listeners[i], myself()))
			adoption_forget(&listeners[i]);
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
				watch_remove(&listeners[i], watch);
		}
	forget_unwatched();
	unpin_unless_adopting();
	set_descriptor(epfd, UNKNOWN);
}

bool adopters_fall_silent(void)
{
	bool any = false;

	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++)
			if (listeners[i].watch[j].used && listeners[i].watch[j].cpu >= 0) {
				pulse_falls_silent(listeners[i].watch[j].cpu);
				any = true;
			}
	return any;
}
