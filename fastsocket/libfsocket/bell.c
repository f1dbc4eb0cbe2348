// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <sched.h>

#include "bell.h"
#include "clock.h"
#include "clone.h"
#include "neighbours.h"
#include "poll_bell.h"
#include "real.h"
#include "seats.h"

/* How often a worker whose bell has rung glances at the clones, and how often once it watches them itself. */
#define GLANCE_MS 2
#define GLANCE_AT_WATCHED_MS 20

/* A bell that the calling thread has heard. */
struct ring {
	struct listener *l;
	struct shared_listener *shared;
	uint32_t generation;
	struct watch *watch;
	int bell;
	int guarded[BELL_CLONES];
	uint64_t accepted[BELL_CLONES]; /* by their own workers, at the last glance */
};
THREAD_LOCAL struct ring rings[8];
THREAD_LOCAL size_t rings_end;
THREAD_LOCAL uint64_t glance_ms; /* when to glance again */

/* ---- which clones a worker guards ---- */

static bool is_guardable(const struct listener *l, int cpu)
{
	return atomic_load(&l->clone[cpu].fd) >= 0 && atomic_load(&l->shared->seat[cpu].listening);
}

/*
 * Chooses the clones that a worker guards: those of the next CPUs that have a worker. If a CPU has no worker, every
 * worker looks after its clone: neighbours.c.
 */
static void choose(const struct listener *l, const struct watch *watch, int *chosen)
{
	int end = atomic_load(&l->cpus_end), own = watch->cpu >= 0 ? watch->cpu : sched_getcpu();
	size_t n = 0;

	for (int i = 1; i <= end && n < BELL_CLONES; i++) {
		int cpu = (own + i) % end;

		if (cpu != watch->cpu && is_guardable(l, cpu) && seat_is_taken(&l->shared->seat[cpu]))
			chosen[n++] = cpu;
	}
	while (n < BELL_CLONES)
		chosen[n++] = -1;
}

static void guard_no_longer(const struct listener *l, struct watch *watch, size_t i)
{
	struct epoll_event unused = { 0 };

	if (watch->guarded[i] >= 0)
		real.epoll_ctl(watch->bell, EPOLL_CTL_DEL, atomic_load(&l->clone[watch->guarded[i]].fd), &unused);
	watch->guarded[i] = -1;
}

static void guard(const struct listener *l, struct watch *watch, size_t i, int cpu)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = i };

	guard_no_longer(l, watch, i);
	if (cpu >= 0 && clone_of(l, cpu) >= 0 && !real.epoll_ctl(watch->bell, EPOLL_CTL_ADD, clone_of(l, cpu), &event))
		watch->guarded[i] = cpu;
}

static bool contains(const int *cpus, int cpu)
{
	for (size_t i = 0; i < BELL_CLONES; i++)
		if (cpus[i] == cpu)
			return true;
	return false;
}

static int first_unguarded(const struct watch *watch, const int *chosen)
{
	for (size_t i = 0; i < BELL_CLONES; i++)
		if (!contains(watch->guarded, chosen[i]))
			return chosen[i];
	return -1;
}

/* A clone that is guarded already keeps its place. */
static void guard_all(const struct listener *l, struct watch *watch, const int *chosen)
{
	for (size_t i = 0; i < BELL_CLONES; i++)
		if (watch->guarded[i] < 0 || !contains(chosen, watch->guarded[i]))
			guard(l, watch, i, first_unguarded(watch, chosen));
}

/* ---- the bell ---- */

static bool change_bell(const struct watch *watch, int op, uint32_t events)
{
	struct epoll_event event = { .events = events | EPOLLONESHOT, .data = watch->event.data };

	return !real.epoll_ctl(watch->epfd, op, watch->bell, &event);
}

static bool make_bell(struct watch *watch)
{
	int bell = bell_create();

	if (bell < 0)
		return false;
	watch->bell = bell;
	for (size_t i = 0; i < BELL_CLONES; i++)
		watch->guarded[i] = -1;
	if (!change_bell(watch, EPOLL_CTL_ADD, 0)) {
		bell_take_down(watch);
		return false;
	}
	return true;
}

/*
 * Arms the bell. False: a connection waits in one of the clones, so that the bell would ring at once. If another
 * process has shut down a clone, it would ring for ever: the bell guards it no longer.
 */
static bool arm(const struct listener *l, struct watch *watch)
{
	struct epoll_event reported[BELL_CLONES];
	int n = real.epoll_wait(watch->bell, reported, BELL_CLONES, 0);

	for (int i = 0; i < n; i++)
		if (reported[i].events != EPOLLIN || !is_guardable(l, watch->guarded[reported[i].data.u64]))
			guard_no_longer(l, watch, reported[i].data.u64);
	watch->is_armed = n == 0 && change_bell(watch, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDNORM);
	return watch->is_armed;
}

static struct ring *ring_of(const struct watch *watch)
{
	for (size_t i = 0; i < rings_end; i++)
		if (rings[i].watch == watch && rings[i].bell == watch->bell)
			return &rings[i];
	return NULL;
}

static void note_ring(struct listener *l, struct watch *watch)
{
	struct ring ring = { l, l->shared, l->generation, watch, watch->bell, { 0 }, { 0 } };

	watch->is_armed = false;
	glance_ms = 0;
	if (rings_end == COUNT(rings) || ring_of(watch)) /* the next look arms the bell again */
		return;
	for (size_t i = 0; i < BELL_CLONES; i++) {
		ring.guarded[i] = watch->guarded[i];
		ring.accepted[i] = UINT64_MAX;
	}
	rings[rings_end++] = ring;
}

void bell_hang(struct listener *l, struct watch *watch)
{
	int chosen[BELL_CLONES];

	if (l->blocks || !(watch->event.events & EPOLLIN) || watch->event.events & (EPOLLONESHOT | EPOLLRDNORM)) {
		bell_take_down(watch);
		return;
	}
	choose(l, watch, chosen);
	if ((chosen[0] < 0 && !watch->bell) || (!watch->bell && !make_bell(watch)))
		return;
	guard_all(l, watch, chosen);
	if (!watch->is_armed && !ring_of(watch) && !arm(l, watch))
		note_ring(l, watch);
}

void bell_follow(const struct watch *watch)
{
	if (watch->is_armed)
		change_bell(watch, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDNORM);
}

/* Takes the bell out of its epoll before closing it: an epoll that a child has inherited would keep the bell. */
void bell_take_down(struct watch *watch)
{
	struct epoll_event unused = { 0 };
	int bell = watch->bell;

	if (!bell)
		return;
	watch->bell = 0;
	watch->is_armed = false;
	set_descriptor(bell, UNKNOWN);
	real.epoll_ctl(watch->epfd, EPOLL_CTL_DEL, bell, &unused);
	real.close(bell);
}

void bells_take_down(struct listener *l)
{
	poll_bell_take_down(l);
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used)
			bell_take_down(&l->watch[i]);
}

void bell_is_closed(int fd)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].poll_bell == fd)
			listeners[i].poll_bell = 0;
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++)
			if (listeners[i].watch[j].used && listeners[i].watch[j].bell == fd)
				listeners[i].watch[j].bell = 0;
	set_descriptor(fd, UNKNOWN);
}

void bells_forget(struct listener *l)
{
	poll_bell_take_down(l);
	for (size_t i = 0; i < MAX_WATCHES; i++) {
		struct watch *watch = &l->watch[i];

		if (watch->used && watch->bell) {
			set_descriptor(watch->bell, UNKNOWN);
			real.close(watch->bell);
		}
		watch->bell = 0;
	}
	rings_end = 0;
}

/* ---- rings ---- */

/*
 * An event tells only the data that the application chose, and several listeners may have the same data. So each armed
 * bell of this epoll with that data counts as rung.
 */
static bool rings_for(struct listener *l, int epfd, const struct epoll_event *event)
{
	bool any = false;

	for (size_t i = 0; i < MAX_WATCHES; i++) {
		struct watch *watch = &l->watch[i];

		if (watch->used && watch->bell && watch->epfd == epfd && watch->is_armed &&
		    watch->event.data.u64 == event->data.u64) {
			note_ring(l, watch);
			any = true;
		}
	}
	return any;
}

static bool is_ring(int epfd, const struct epoll_event *event)
{
	bool any = false;

	if (likely(!(event->events & EPOLLRDNORM)))
		return false;
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && rings_for(&listeners[i], epfd, event))
			any = true;
	return any;
}

static int take_rings_out(int epfd, struct epoll_event *events, int n)
{
	int left = 0;
	struct held held;

	lock_tables(&held);
	for (int i = 0; i < n; i++)
		if (!is_ring(epfd, &events[i]))
			events[left++] = events[i];
	unlock_tables(&held);
	return left;
}

int bells_heard(int epfd, struct epoll_event *events, int n)
{
	for (int i = 0; i < n; i++)
		if (!likely(!(events[i].events & EPOLLRDNORM)))
			return take_rings_out(epfd, events, n);
	return n;
}

/* ---- glances ---- */

static bool accepts(struct ring *ring, size_t i)
{
	uint64_t accepted = atomic_load(&ring->shared->seat[ring->guarded[i]].accepted);
	bool does = accepted != ring->accepted[i] && ring->accepted[i] != UINT64_MAX;

	ring->accepted[i] = accepted;
	return does;
}

static bool is_valid(const struct ring *ring)
{
	return ring->l->generation == ring->generation && ring->l->cloned && ring->watch->used &&
	       ring->watch->bell == ring->bell;
}

/* Returns in how many milliseconds to glance again; 0: not before the bell has rung again. */
static int tend_guarded(struct ring *ring, const bool *accepting, uint64_t patience, uint64_t now)
{
	int again = 0;

	for (size_t i = 0; i < BELL_CLONES; i++) {
		int cpu = ring->guarded[i];

		if (cpu < 0)
			continue;
		if (accepting[i] || neighbour_tend(ring->l, cpu, ring->watch, patience, now))
			again = atomic_load(&ring->l->clone[cpu].neighbour_epfd) < 0 ? GLANCE_MS
			        : again                                              ? again
			                                                             : GLANCE_AT_WATCHED_MS;
	}
	return again || arm(ring->l, ring->watch) ? again : GLANCE_MS;
}

static int glance(struct ring *ring, uint64_t patience, uint64_t now)
{
	bool accepting[BELL_CLONES] = { false }, all = true;
	struct held held;
	int again;

	for (size_t i = 0; i < BELL_CLONES; i++)
		if (ring->guarded[i] >= 0)
			all = (accepting[i] = accepts(ring, i)) && all;
	if (all)
		return GLANCE_MS;
	lock_tables(&held);
	again = is_valid(ring) ? tend_guarded(ring, accepting, patience, now) : 0;
	unlock_tables(&held);
	return again;
}

int bells_answer(uint64_t patience, uint64_t now, struct quiet *quiet)
{
	int soonest = -1;

	if (likely(!rings_end))
		return -1;
	if (now < glance_ms)
		return (int)(glance_ms - now);
	quiet_begins(quiet);
	now = precise_ms();
	for (size_t i = rings_end; i-- > 0;) {
		int again = glance(&rings[i], patience, now);

		if (!again)
			rings[i] = rings[--rings_end];
		else if (soonest < 0 || again < soonest)
			soonest = again;
	}
	glance_ms = now + (uint64_t)(soonest > 0 ? soonest : 0);
	return soonest;
}
