// SPDX-License-Identifier: MIT
/*
 * A listener of a CPU is one worker's, and that worker may be stopped, busy for long, killed, or have stopped watching.
 * Its connections must not wait for it: each worker looks at the others' listeners now and then, and watches, too,
 * those that nobody has tended for a while, until somebody does again.
 *
 * They watch without EPOLLEXCLUSIVE, whatever the application asked for: such a watch would take the one wakeup that a
 * connection gives away from the owner, who may have just come (back), and a neighbour that sees the owner does not
 * accept. Source: Linux fs/eventpoll.c, ep_poll_callback(); kernel/sched/wait.c, __wake_up_common().
 */
#define _GNU_SOURCE
#include "fsocket.h"

/* A worker says that it is there every 250 ms; one that has missed two of these is late. */
#define LATE_MS 600

bool is_neglected(const struct seat *seat, uint64_t now)
{
	uint64_t tended = atomic_load(&seat->tended_ms);

	if (!atomic_load(&seat->listening))
		return false;
	return (now > tended && now - tended > LATE_MS) || !anybody_at(seat);
}

static void take_care(struct listener *l, int cpu, const struct watch *watch)
{
	struct clone *clone = &l->clone[cpu];
	struct watch beside = *watch;
	int nobody = -1;

	if (!atomic_compare_exchange_strong(&clone->neighbour_epfd, &nobody, watch->epfd))
		return;
	beside.event.events &= ~(uint32_t)EPOLLEXCLUSIVE;
	atomic_fetch_add(&l->neighbours, 1);
	if (clone_of(l, cpu) < 0 || !start_watching(l, cpu, &beside)) {
		atomic_store(&clone->neighbour_epfd, -1);
		atomic_fetch_sub(&l->neighbours, 1);
	}
}

void neighbours_tend(struct listener *l, const struct watch *watch, uint64_t now)
{
	for_each_clone(cpu, l) {
		bool mine = atomic_load(&l->clone[cpu].neighbour_epfd) == watch->epfd;

		if (cpu == watch->cpu)
			continue;
		if (is_neglected(&l->shared->seat[cpu], now))
			take_care(l, cpu, watch);
		else if (mine)
			stop_watching(l, cpu, watch->epfd);
	}
}
