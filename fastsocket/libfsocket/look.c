// SPDX-License-Identifier: MIT
/*
 * What the application watches with epoll, and looking after it. A thread that waits for an epoll in which the
 * application has a listener wakes now and then, adopts a clone or gives one up, and takes care of its neighbours'.
 *
 * A watch is known by the epoll's and the listener's number, and numbers are used again. So each look first has the
 * kernel prove that this epoll holds this listener.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "fsocket.h"

/* A thread that watches listeners looks after them this often, and so soon again when a connection waits. */
#define LOOK_EVERY_MS 250
#define LOOK_AGAIN_MS 20
/* A watch falls to another thread that waits for its epoll when its own has not looked for so long. */
#define ABSENT_MS 1000

THREAD_LOCAL uint64_t look_again_ms;
THREAD_LOCAL uint32_t changes_seen;
THREAD_LOCAL int looked_at = -1; /* the epoll */
/* Watches that were added, so that the next wait looks at once. */
static _Atomic uint32_t additions;

static uint32_t changes(void)
{
	return page_changes() + atomic_load_explicit(&additions, memory_order_relaxed);
}

/* ---- the watches ---------------------------------------------------------------------------------------------- */

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
 * An epoll that holds a socket refuses to take it a second time. Once a clone is in the epoll, the clone is the proof:
 * the application may have closed this name of its listener and kept another one.
 */
static bool is_proved(const struct listener *l, const struct watch *watch)
{
	bool is_clone = watch->cpu >= 0 && l->cloned, has_name = find_listener(watch->fd) == l;
	int fd = is_clone ? clone_of(l, watch->cpu) : has_name ? watch->fd : l->fd;
	struct epoll_event event = { 0 };

	if (real.epoll_ctl(watch->epfd, EPOLL_CTL_ADD, fd, &event))
		return errno == EEXIST;
	real.epoll_ctl(watch->epfd, EPOLL_CTL_DEL, fd, &event);
	return !is_clone && !has_name; /* at least it is an epoll, and none that the application has closed */
}

static void unwatch_neighbours(struct listener *l, int epfd)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].neighbour_epfd) == epfd)
			clone_unwatch(l, cpu, epfd);
}

/* By its last name in this epoll: what the library has put into the epoll goes, too. */
static void remove_watch(struct listener *l, struct watch *watch)
{
	struct watch gone = *watch, *other;

	watch->used = false;
	if (gone.inherited)
		return;
	other = any_watch_in(l, gone.epfd);
	if (other && gone.cpu >= 0) {
		other->cpu = gone.cpu;
		other->thread = gone.thread;
		gone.event = other->event;
		real.epoll_ctl(gone.epfd, EPOLL_CTL_MOD, atomic_load(&l->clone[gone.cpu].fd), &gone.event);
		return;
	}
	if (other)
		return;
	unwatch_neighbours(l, gone.epfd);
	give_up(l, &gone);
	if (!is_watched(l))
		page_no_thread_waits(l->shared);
}

/* This process accepts from the clone of this thread's CPU: what another epoll of it sees, this one has to see. */
static bool serves_already(const struct listener *l)
{
	cpu_set_t allowed;
	int cpu = affinity_of_this_thread(&allowed) ? only_cpu(&allowed) : -1;

	return cpu >= 0 && l->cloned && atomic_load(&l->clone[cpu].watchers);
}

static void watch_added(struct listener *l, int epfd, int fd, const struct epoll_event *event)
{
	struct watch *watch = watch_of(l, epfd, fd);

	if (!watch)
		watch = free_watch(l);
	if (!watch)
		return;
	*watch = (struct watch){ .used = true, .epfd = epfd, .fd = fd, .cpu = -1, .event = *event };
	set_descriptor(epfd, WATCHING);
	if ((adoption_of(l) || serves_already(l)) && !seccomp_was_installed()) {
		watch->thread = myself();
		adopt(l, watch);
	}
	if (watch->cpu < 0)
		atomic_fetch_add(&additions, 1);
}

static void watch_modified(struct listener *l, int epfd, int fd, const struct epoll_event *event)
{
	struct watch *watch = watch_of(l, epfd, fd);

	if (!watch)
		return;
	watch->event = *event;
	if (!(event->events & EPOLLIN) && !watch->inherited) { /* a pause */
		unwatch_neighbours(l, epfd);
		give_up(l, watch);
		return;
	}
	for_each_clone(cpu, l) {
		struct epoll_event copy = *event;

		if (l->cloned && atomic_load(&l->clone[cpu].watchers))
			real.epoll_ctl(epfd, EPOLL_CTL_MOD, atomic_load(&l->clone[cpu].fd), &copy);
	}
	if (watch->cpu < 0 && !watch->inherited)
		atomic_fetch_add(&additions, 1);
}

/*
 * Only nginx with EPOLLEXCLUSIVE takes its listener out and puts it back at once, every 16 accepts. It keeps its seat
 * meanwhile, so that its neighbours do not come for nothing.
 */
static void watch_deleted(struct listener *l, int epfd, int fd)
{
	struct watch *watch = watch_of(l, epfd, fd);

	if (!watch)
		return;
	for_each_clone(cpu, l)
		if (watch->inherited && atomic_load(&l->clone[cpu].watchers))
			clone_unwatch(l, cpu, epfd);
	if (watch->event.events & EPOLLEXCLUSIVE && watch->cpu >= 0 && l->cloned) {
		clone_unwatch(l, watch->cpu, epfd);
		watch->cpu = -1;
	}
	remove_watch(l, watch);
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

/* Another name of the epoll that holds this, or -1. An epoll with a watch of its own is another one. */
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

/* With the tables locked: the application closes an epoll, or one of its names. */
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

/* ---- looking after them --------------------------------------------------------------------------------------- */

/* A thread that waits for an epoll looks after its watches; one that waits for it by another epoll, for those of nobody. */
static bool falls_to(const struct watch *watch, uint64_t thread, int epfd, bool is_outer, uint64_t now)
{
	if (watch->thread == thread || watch->inherited)
		return !watch->inherited;
	return (watch->epfd == epfd || is_outer) && (!watch->thread || now - watch->looked_ms > ABSENT_MS);
}

/* Every clone is being emptied, or is closed: nothing of ours is to be tried first any more. */
static void has_withdrawn(struct listener *l, struct watch *watch)
{
	if (watch->cpu >= 0 && !atomic_load(&l->shared->seat[watch->cpu].listening)) {
		give_up(l, watch);
		adoptions[l - listeners].generation = 0;
	}
}

static bool look_at(struct listener *l, struct watch *watch, bool idle, uint64_t now)
{
	bool withdrawn;

	if (!is_proved(l, watch)) {
		remove_watch(l, watch);
		return false;
	}
	group_check(l, now);
	listeners_flags_changed(watch->fd);
	if (l->signals)
		succession_refuse(l, REFUSED_BY_OPTION);
	withdrawn = l->cloned && succession_tend(l, now);
	if (withdrawn)
		has_withdrawn(l, watch);
	else
		reconsider(l, watch);
	if (watch->cpu >= 0)
		atomic_store(&l->shared->seat[watch->cpu].tended_ms, now);
	return l->cloned && neighbours_tend(l, watch, idle, now);
}

static bool is_outer_epoll(int epfd)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && any_watch_in(&listeners[i], epfd))
			return false;
	return true;
}

static bool look(int epfd, bool idle, uint64_t now)
{
	uint64_t me = myself();
	bool soon = false, is_outer;
	struct held held;

	lock_tables(&held);
	is_outer = is_outer_epoll(epfd);
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++) {
			struct watch *watch = &listeners[i].watch[j];

			if (!watch->used || !falls_to(watch, me, epfd, is_outer, now))
				continue;
			watch->thread = me;
			watch->looked_ms = now;
			soon = look_at(&listeners[i], watch, idle, now) || soon;
		}
	unlock_tables(&held);
	return soon;
}

int look_after(int epfd, bool idle)
{
	uint64_t now = now_ms();

	if (now >= look_again_ms || changes_seen != changes() || looked_at != epfd) {
		changes_seen = changes();
		looked_at = epfd;
		look_again_ms = now + (look(epfd, idle, now) ? LOOK_AGAIN_MS : LOOK_EVERY_MS);
	}
	return (int)(look_again_ms - now);
}
