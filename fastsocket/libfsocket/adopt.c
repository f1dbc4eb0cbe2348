// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "adopt.h"
#include "affinity.h"
#include "balance.h"
#include "clock.h"
#include "clone.h"
#include "group.h"
#include "log.h"
#include "mark.h"
#include "options.h"
#include "process.h"
#include "pulse.h"
#include "real.h"
#include "seats.h"
#include "settings.h"
#include "sockopt.h"
#include "withdrawal.h"

__thread struct adoption adoptions[MAX_LISTENERS] INITIAL_EXEC;

/* For each listener: on which CPU the calling thread was counted as a worker without a clone. */
THREAD_LOCAL struct {
	uint32_t generation[MAX_LISTENERS];
	int16_t cpu[MAX_LISTENERS];
} fallbacks;

void adoption_forget(const struct listener *l)
{
	adoptions[l - listeners].generation = 0;
}

void adoptions_forget(void)
{
	memset(adoptions, 0, sizeof(adoptions));
	memset(&fallbacks, 0, sizeof(fallbacks));
	pulse_forget();
}

/*
 * Chooses a CPU for a worker that the application has not pinned: a CPU without a worker, or else the next CPU in turn.
 */
static int next_cpu(struct shared_listener *shared, const cpu_set_t *candidates)
{
	int turn, cpu;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, candidates) && seat_claim(&shared->seat[cpu]))
			return cpu;
	turn = (int)(atomic_fetch_add(&shared->tickets, 1) % (uint32_t)CPU_COUNT(candidates));
	for (cpu = 0; turn > 0 || !CPU_ISSET(cpu, candidates); cpu++)
		turn -= CPU_ISSET(cpu, candidates) ? 1 : 0;
	return cpu;
}

/* Pinning costs nothing where every CPU has a worker. With fewer workers, it would leave CPUs idle. */
static bool may_pin_among(struct listener *l, const cpu_set_t *candidates)
{
	size_t cpus = (size_t)CPU_COUNT(candidates);

	if (!cpus || !affinity_may_pin())
		return false;
	waits_without_seat(l->shared);
	return settings.pin == PIN_ALWAYS || (cpus > 1 && workers_of(l->shared) >= cpus);
}

static enum reason obstacle(const struct listener *l, const struct watch *watch)
{
	if (!l->cloned && !l->sharded)
		return l->why_not;
	if (refusal_of(l))
		return refusal_of(l);
	if (l->guarded)
		return OPTION;
	if (!(watch->event.events & EPOLLIN))
		return NOT_FOR_CONNECTIONS;
	if (watch->event.events & EPOLLONESHOT)
		return ONE_SHOT;
	if (l->blocks) /* accept() would try the clone and then sleep on the listener */
		return ACCEPT_BLOCKS;
	if (seccomp_was_installed())
		return SECCOMP_FILTER;
	if (is_withdrawn(l))
		return HANDED_OVER;
	return NO_REASON;
}

static bool waits_for(const struct listener *l, int epfd)
{
	for (size_t i = 0; i < MAX_WATCHES; i++) {
		const struct watch *watch = &l->watch[i];

		if (watch->used && !watch->inherited && watch->epfd == epfd && !obstacle(l, watch))
			return true;
	}
	return false;
}

/*
 * A worker may wait for several listeners that have clones. Returns the one by whose seats it chooses its CPU: the
 * first in the shared memory, so that all workers with the same listeners choose by the same one. Otherwise two workers
 * could get the same CPU by different listeners.
 */
static struct shared_listener *decisive(const struct listener *l, int epfd)
{
	struct shared_listener *first = l->shared;

	for (size_t i = 0; i < MAX_LISTENERS; i++) {
		const struct listener *other = &listeners[i];

		if (other->generation && other->cloned && other->shared < first && waits_for(other, epfd))
			first = other->shared;
	}
	return first;
}

/*
 * The CPU whose connections the calling thread is to serve, or -1. A thread must stay on its CPU for locality: either
 * the application has pinned it, or there is a worker for every CPU and the library pins it, as the original Fastsocket
 * did.
 */
static int choose_cpu(struct listener *l, const struct watch *watch)
{
	cpu_set_t allowed, candidates;
	int cpu;

	affinity_of_this_thread(&allowed);
	cpu = only_cpu(&allowed);
	if (cpu >= 0)
		return cpu;
	CPU_AND(&candidates, &allowed, &l->cpus);
	if (!may_pin_among(l, &candidates))
		return -1;
	cpu = next_cpu(l->cloned ? decisive(l, watch->epfd) : l->shared, &candidates);
	return affinity_pin(cpu, &allowed) ? cpu : -1;
}

static enum reason make_listen(struct listener *l, int cpu)
{
	int fd = clone_of(l, cpu);

	if (fd < 0)
		return CLONE_CLOSED;
	if (!listens_at_its_address(l))
		return NOT_LISTENING;
	if (!clone_marks_cpu(fd, cpu) || !options_make_equal(l->fd, fd))
		return OPTION;
	wait_for_predecessor(l);
	if (real.listen(fd, backlog_of(l->fd)))
		return CLONE_CANNOT_LISTEN;
	/* listen() turns TCP_QUICKACK on: inet_csk_delack_init() in net/ipv4/inet_connection_sock.c */
	option_follows(l->fd, fd, IPPROTO_TCP, TCP_QUICKACK);
	return NO_REASON;
}

/* Puts the worker's own clone into its epoll. The worker may have watched it as a neighbour until now. */
static bool watch_own_clone(struct listener *l, int cpu, struct watch *watch)
{
	watch->wakes_all = seat_is_shared(&l->shared->seat[cpu]);
	if (!clone_watch(l, cpu, watch->epfd, watch->wakes_all ? watch->event : exclusively(watch->event)))
		return false;
	clone_is_no_neighbour(l, cpu, watch->epfd);
	return true;
}

static enum reason serve_clone(struct listener *l, int cpu, struct watch *watch)
{
	struct seat *seat = &l->shared->seat[cpu];
	enum reason problem = clone_listens(l, cpu) ? NO_REASON : make_listen(l, cpu);

	if (problem)
		return problem;
	if (l->own_reuseport) /* leave_group() may have taken the CPU off the clone */
		clone_marks_cpu(clone_of(l, cpu), cpu);
	seat_join(seat);
	atomic_store(&seat->listening, 1);
	balance_add(l, cpu);
	unattended_ends(l);
	if (!watch_own_clone(l, cpu, watch)) {
		refuse(l, CLONE_CANNOT_BE_WATCHED); /* no other worker can watch it either: the epolls are full */
		return CLONE_CANNOT_BE_WATCHED;
	}
	return NO_REASON;
}

static enum reason serve_shard(struct listener *l, int cpu)
{
	if (!clone_marks_cpu(l->fd, cpu))
		return INCOMING_CPU_REFUSED;
	seat_join(&l->shared->seat[cpu]);
	atomic_store(&l->shared->seat[cpu].listening, 1);
	return NO_REASON;
}

static bool has_clone(struct listener *l, int cpu)
{
	return CPU_ISSET(cpu, &l->cpus) || (!l->sharded && clone_bind(l, cpu));
}

static enum reason adopt_on(struct listener *l, struct watch *watch, int cpu, bool again)
{
	enum reason problem;

	if (!has_clone(l, cpu))
		return CPU_WITHOUT_CLONE;
	if (!again && !group_is_ours(l)) /* afterwards the kernel is asked once a second: check_group() */
		problem = NEIGHBOUR;
	else
		problem = l->sharded ? serve_shard(l, cpu) : serve_clone(l, cpu, watch);
	if (problem)
		seat_leave(&l->shared->seat[cpu], myself());
	return problem;
}

bool has_adopter(const struct listener *l)
{
	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		if (seat_is_taken(&l->shared->seat[cpu]))
			return true;
	return false;
}

static void tell(const struct listener *l, enum reason problem)
{
	if (!problem || !has_adopter(l))
		snprintf(l->shared->why_not, sizeof(l->shared->why_not), "%s", reason_text(problem));
	if (problem && settings.verbose)
		fsocket_log("a worker does not get a listener of its own: %s", reason_text(problem));
}

static void falls_back(struct listener *l, enum reason problem)
{
	size_t index = (size_t)(l - listeners);

	waits_without_seat(l->shared);
	if (fallbacks.generation[index] == l->generation) /* already counted: a worker tries again from time to time */
		return;
	fallbacks.generation[index] = l->generation;
	fallbacks.cpu[index] = (int16_t)sched_getcpu();
	count(&counters_of(fallbacks.cpu[index])->fallen_back);
	tell(l, problem);
	worker_arrives();
}

static void now_serves(struct listener *l, struct watch *watch, int cpu, bool again)
{
	size_t index = (size_t)(l - listeners);

	watch->cpu = cpu;
	atomic_store(&l->shared->seat[cpu].tended_ms, now_ms());
	if (!again) {
		waits_no_longer(l->shared);
		if (l->cloned)
			mark_unless_creator(l);
		count(&counters_of(cpu)->adopted);
		worker_arrives();
	}
	if (fallbacks.generation[index] == l->generation)
		atomic_fetch_sub(&counters_of(fallbacks.cpu[index])->fallen_back, 1);
	fallbacks.generation[index] = 0;
	pulse_begins(cpu);
	adoptions[l - listeners] = (struct adoption){ .generation = l->generation,
	                                              .tenure = atomic_load(&l->clone[cpu].tenure),
	                                              .cpu = (uint32_t)cpu,
	                                              .until_global_turn = ACCEPTS_PER_GLOBAL_TURN };
	tell(l, NO_REASON);
}

/*
 * nginx takes a listener with EPOLLEXCLUSIVE out of its epoll and puts it back after every 16 accepts. The worker has
 * kept its seat and its clone, so the clone only has to come back into the epoll.
 */
static bool resumes(struct listener *l, struct watch *watch, int cpu)
{
	if (!(watch->event.events & EPOLLEXCLUSIVE) || !l->cloned || !seat_is_mine(&l->shared->seat[cpu]) ||
	    !clone_listens(l, cpu) || !watch_own_clone(l, cpu, watch))
		return false;
	watch->cpu = cpu;
	return true;
}

void adopt(struct listener *l, struct watch *watch)
{
	struct adoption *again = adoption_of(l);
	enum reason problem = obstacle(l, watch);
	int cpu;

	if (!problem && again && resumes(l, watch, again->cpu))
		return;
	if (!problem) {
		cpu = again ? again->cpu : choose_cpu(l, watch);
		problem = cpu < 0 ? NOT_PINNED : adopt_on(l, watch, cpu, again);
	}
	if (problem)
		falls_back(l, problem);
	else
		now_serves(l, watch, cpu, again);
}

void give_up(struct listener *l, struct watch *watch)
{
	int cpu = watch->cpu;

	if (cpu < 0)
		return;
	seat_leave(&l->shared->seat[cpu], watch->thread);
	if (l->cloned)
		clone_unwatch(l, cpu, watch->epfd);
	if (l->sharded)
		clone_marks_cpu(l->fd, -1);
	watch->cpu = -1;
	atomic_fetch_add(&l->clone[cpu].tenure, 1);
	if (l->cloned && !has_adopter(l))
		unattended_begins(l);
	worker_departs();
}

void reconsider(struct listener *l, struct watch *watch)
{
	cpu_set_t allowed;
	int pinned;

	if (l->sharded && watch->cpu >= 0 && refusal_of(l))
		give_up(l, watch);
	affinity_of_this_thread(&allowed);
	pinned = only_cpu(&allowed);
	if (watch->cpu >= 0 && (pinned < 0 || pinned == watch->cpu)) {
		affinity_renew(watch->cpu, &allowed);
		return;
	}
	if (watch->cpu >= 0 && obstacle(l, watch))
		return;
	if (watch->cpu >= 0) {
		give_up(l, watch);
		adoption_forget(l);
	}
	adopt(l, watch);
}

void unpin_unless_adopting(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && adoption_of(&listeners[i]))
			return;
	affinity_forget();
}

/*
 * No thread of this process accepts from this clone any longer. Other workers that watch the listener accept what waits
 * in the clone. If there are none, the connections wait for the next worker, as they would have waited in a single
 * listener.
 */
static void leave_seat(struct seat *seat)
{
	if (seat_leave_with_all_threads(seat) && !seat_is_taken(seat))
		worker_departs();
}

void adopters_leave(struct listener *l)
{
	bool adopted = has_adopter(l);

	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		leave_seat(&l->shared->seat[cpu]);
	if (l->cloned && adopted && !has_adopter(l))
		unattended_begins(l);
	if (l->cloned)
		clones_close(l);
	balance_close(l);
	l->cloned = false;
}

/*
 * The application may put a file of its own in the place of the clone. Other processes may hold the clone open and go
 * on listening.
 */
void clone_is_closed(int fd)
{
	struct listener *l = atomic_load(&listener_by_fd[fd]);
	int cpu = cpu_of_clone(l, fd);

	if (cpu < 0)
		return;
	leave_seat(&l->shared->seat[cpu]);
	if (clone_of(l, cpu) == fd && !has_adopter(l))
		clone_stop_listening(l, cpu);
	clone_forget(l, cpu);
}
