// SPDX-License-Identifier: MIT
/*
 * A clone is one worker's, and that worker may be stopped, busy for long, killed, have paused its listener, or have run
 * out of descriptors. Its connections must not wait for it. So each worker looks at the other clones now and then.
 *
 * What counts is the queue, not the worker's pulse: a clone whose connections nobody accepts for some milliseconds is
 * anybody's, and so is a clone that no living worker has. The neighbours watch it, too, until its own worker accepts
 * again.
 *
 * They watch without EPOLLEXCLUSIVE, even if the application asked for it: such a watch would take the one wakeup that
 * a connection gives away from the owner, who may have just come (back), and a neighbour that sees the owner does not
 * accept. Source: Linux fs/eventpoll.c, ep_poll_callback(); kernel/sched/wait.c, __wake_up_common().
 */
#define _GNU_SOURCE
#include "fsocket.h"

/*
 * A connection that waits for so long while nothing is accepted is anybody's. A worker that runs, or waits for its CPU,
 * will come to it, and a neighbour that is busy itself would not serve it sooner: then it waits longer.
 */
#define STUCK_MS 20
#define STUCK_BEHIND_WORK_MS 500

static bool will_come(const struct seat *seat)
{
	return !atomic_load(&seat->failing) && anybody_runs_at(seat);
}

/* A clone that shutdown() has stopped is ready, too, but not for accept(). */
static bool holds_something(const struct listener *l, int cpu)
{
	struct pollfd queue = { .fd = clone_of(l, cpu), .events = POLLIN };

	return queue.fd >= 0 && real.poll(&queue, 1, 0) == 1 && queue.revents == POLLIN;
}

/* Does the queue hold something while its own worker accepts nothing? */
static bool is_stuck(struct listener *l, int cpu, bool idle, uint64_t now)
{
	struct clone *clone = &l->clone[cpu];
	uint64_t accepted = atomic_load(&l->shared->seat[cpu].accepted);
	bool waits = holds_something(l, cpu);

	if (!waits || !clone->pending_ms || clone->pending_accepted != accepted) {
		clone->pending_ms = waits ? now : 0;
		clone->pending_accepted = accepted;
		return false;
	}
	return now - clone->pending_ms >= STUCK_BEHIND_WORK_MS ||
	       (idle && now - clone->pending_ms >= STUCK_MS && !will_come(&l->shared->seat[cpu]));
}

/* May a worker that is not its own accept from it? Connections were seen to wait, and its worker has accepted none since. */
bool is_neglected(const struct listener *l, int cpu)
{
	const struct seat *seat = &l->shared->seat[cpu];
	const struct clone *clone = &l->clone[cpu];

	return atomic_load(&seat->listening) &&
	       ((clone->pending_ms && atomic_load(&seat->accepted) == clone->pending_accepted) || !anybody_at(seat));
}

/* Says whether the process watches the clone as a neighbour. */
static bool take_care(struct listener *l, int cpu, const struct watch *watch)
{
	struct clone *clone = &l->clone[cpu];
	struct epoll_event event = watch->event;
	int nobody = -1;

	if (!atomic_compare_exchange_strong(&clone->neighbour_epfd, &nobody, watch->epfd))
		return true;
	event.events &= ~(uint32_t)EPOLLEXCLUSIVE;
	atomic_fetch_add(&l->neighbours, 1);
	if (clone_of(l, cpu) >= 0 && clone_watch(l, cpu, watch->epfd, event))
		return true;
	atomic_store(&clone->neighbour_epfd, -1);
	atomic_fetch_sub(&l->neighbours, 1);
	return false;
}

static bool tend(struct listener *l, int cpu, const struct watch *watch, bool idle, uint64_t now)
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
	if (!anybody_at(seat) || is_stuck(l, cpu, idle, now))
		return take_care(l, cpu, watch);
	return l->clone[cpu].pending_ms != 0;
}

bool neighbours_tend(struct listener *l, const struct watch *watch, bool idle, uint64_t now)
{
	bool look_soon = false;
	int covered = 0;

	if (l->blocks || !(watch->event.events & EPOLLIN) || watch->event.events & EPOLLONESHOT)
		return false;
	for_each_clone(cpu, l) {
		covered += atomic_load(&l->shared->seat[cpu].listening) != 0;
		if (cpu != watch->cpu)
			look_soon = tend(l, cpu, watch, idle, now) || look_soon;
	}
	atomic_store(&l->covered, covered == CPU_COUNT(&l->cpus));
	return look_soon;
}

/* For a thread that waits with poll() or select() for the listener itself: is there anything that it could accept? */
bool neighbours_have_something(struct listener *l)
{
	for_each_clone(cpu, l) {
		bool abandoned = atomic_load(&l->shared->seat[cpu].listening) && !anybody_at(&l->shared->seat[cpu]);
		bool own = atomic_load(&l->clone[cpu].watchers) && atomic_load(&l->clone[cpu].neighbour_epfd) < 0;

		if (own || abandoned ? holds_something(l, cpu) : is_stuck(l, cpu, true, now_ms()))
			return true;
	}
	return false;
}
