// SPDX-License-Identifier: MIT
/*
 * Local Listen Table: which worker accepts from which clone.
 *
 * epoll_ctl()   notes that an epoll watches a listener.
 * epoll_wait()  the thread that waits for such an epoll adopts the clone of its CPU: the clone listens from then on, and
 *               the epoll watches it, too. The kernel gives it the connections whose SYN that CPU handled.
 *
 * A thread adopts only when it waits, because a clone that receives has to be looked after, and a thread that waits in
 * the library can be woken for that. Where the application opened several SO_REUSEPORT listeners on an address itself,
 * these are the local listeners: the worker's CPU is written on the one that it watches, and there are no clones.
 * Sources: socket(7), SO_INCOMING_CPU; Linux b261eda84ec1 (SO_INCOMING_CPU in reuseport groups).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fsocket.h"

__thread struct adoption adoptions[MAX_LISTENERS] __attribute__((tls_model("initial-exec")));

/* Where the calling thread has been counted as one without a clone of this listener. */
THREAD_LOCAL struct fallback {
	uint32_t generation;
	int cpu;
} fallbacks[MAX_LISTENERS];

struct adoption *adoption_of(const struct listener *l)
{
	struct adoption *mine = &adoptions[l - listeners];

	return mine->generation == l->generation ? mine : NULL;
}

void adoptions_forget(void)
{
	memset(adoptions, 0, sizeof(adoptions));
	memset(fallbacks, 0, sizeof(fallbacks));
}

/* ---- which CPU ------------------------------------------------------------------------------------------------ */

/* A worker that nobody pinned: a CPU that nobody serves, else the next in turn. */
static int next_cpu(struct listener *l, const cpu_set_t *candidates)
{
	int turn, cpu;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, candidates) && claim(&l->shared->seat[cpu]))
			return cpu;
	turn = (int)(atomic_fetch_add(&l->shared->tickets, 1) % (uint32_t)CPU_COUNT(candidates));
	for (cpu = 0; turn > 0 || !CPU_ISSET(cpu, candidates); cpu++)
		turn -= CPU_ISSET(cpu, candidates) ? 1 : 0;
	return cpu;
}

int only_cpu(const cpu_set_t *allowed)
{
	for (int cpu = 0; CPU_COUNT(allowed) == 1 && cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed))
			return cpu;
	return -1;
}

/* To pin a worker costs nothing where every CPU has one. Fewer workers would leave CPUs idle that they can use. */
static bool may_pin_among(struct listener *l, const cpu_set_t *candidates)
{
	size_t cpus = (size_t)CPU_COUNT(candidates);

	if (!cpus || !affinity_may_pin())
		return false;
	page_waits(l->shared);
	return settings.pin == PIN_ALWAYS || (cpus > 1 && page_workers(l->shared) >= cpus);
}

/*
 * The CPU whose connections the calling thread is to serve, or -1. Locality needs a thread that stays where it is: one
 * that is pinned already, or one of so many workers that each CPU gets one, which we pin as the original Fastsocket did.
 */
static int choose_cpu(struct listener *l)
{
	cpu_set_t allowed, candidates;
	int cpu;

	if (!affinity_of_this_thread(&allowed))
		return -1;
	cpu = only_cpu(&allowed);
	if (cpu >= 0)
		return cpu;
	CPU_AND(&candidates, &allowed, &l->cpus);
	if (!may_pin_among(l, &candidates))
		return -1;
	cpu = next_cpu(l, &candidates);
	return affinity_pin(cpu) ? cpu : -1;
}

/* ---- adopting ------------------------------------------------------------------------------------------------- */

static const char *make_listen(struct listener *l, int cpu)
{
	int fd = clone_of(l, cpu);

	if (fd < 0)
		return "its clone was closed";
	if (!clone_marks_cpu(fd, cpu) || !options_make_equal(l->fd, fd))
		return TEXT_OPTION;
	succession_waits(l);
	return real.listen(fd, l->backlog) ? "a clone of it cannot listen" : NULL;
}

static const char *serve_clone(struct listener *l, int cpu, const struct watch *watch)
{
	struct seat *seat = &l->shared->seat[cpu];
	const char *problem = clone_listens(l, cpu) ? NULL : make_listen(l, cpu);

	if (problem)
		return problem;
	if (l->own_reuseport) /* it may have been taken off while there was no worker */
		clone_marks_cpu(clone_of(l, cpu), cpu);
	enrol(seat);
	atomic_store(&seat->listening, 1);
	succession_attended(l);
	if (!clone_watch(l, cpu, watch->epfd, watch->event))
		return "a clone of it cannot be watched";
	clone_is_no_neighbour(l, cpu, watch->epfd); /* what it may have been until now */
	return NULL;
}

static const char *serve_shard(struct listener *l, int cpu)
{
	if (!clone_marks_cpu(l->fd, cpu))
		return "SO_INCOMING_CPU is refused";
	enrol(&l->shared->seat[cpu]);
	atomic_store(&l->shared->seat[cpu].listening, 1);
	return NULL;
}

static const char *obstacle(const struct listener *l, const struct watch *watch)
{
	enum refusal refusal = succession_refusal(l);

	if (!l->cloned && !l->sharded)
		return l->why_not;
	if (refusal || l->guarded)
		return refusal == REFUSED_BY_NEIGHBOUR ? TEXT_NEIGHBOUR : TEXT_OPTION;
	if (!(watch->event.events & EPOLLIN))
		return "it is not watched for connections";
	if (watch->event.events & EPOLLONESHOT)
		return "it is watched with EPOLLONESHOT";
	if (l->blocks) /* accepting tries the clone first, and then has to see that the listener has nothing either */
		return "accept() on it blocks";
	if (l->signals)
		return "it sends signals";
	if (seccomp_was_installed())
		return "the server has installed a seccomp filter";
	if (succession_withdrawn(l))
		return TEXT_HANDED_OVER;
	return NULL;
}

static bool has_clone(struct listener *l, int cpu)
{
	return CPU_ISSET(cpu, &l->cpus) || (!l->sharded && clone_bind(l, cpu));
}

static const char *adopt_on(struct listener *l, struct watch *watch, int cpu)
{
	const char *problem;

	if (!has_clone(l, cpu))
		return "its worker runs on a CPU that was not the server's when it listened";
	if (!group_is_ours(l))
		return TEXT_NEIGHBOUR;
	problem = l->sharded ? serve_shard(l, cpu) : serve_clone(l, cpu, watch);
	if (problem)
		leave(&l->shared->seat[cpu]);
	return problem;
}

static bool anybody_adopts(const struct listener *l)
{
	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		if (anybody_at(&l->shared->seat[cpu]))
			return true;
	return false;
}

static void tell(const struct listener *l, const char *problem)
{
	char *why_not = l->shared->why_not;

	if (!problem)
		why_not[0] = '\0';
	else if (!anybody_adopts(l))
		snprintf(why_not, sizeof(l->shared->why_not), "%s", problem);
	if (problem && settings.verbose)
		fsocket_log("a worker does not get a listener of its own: %s", problem);
}

static void falls_back(struct listener *l, const char *problem)
{
	struct fallback *fallback = &fallbacks[l - listeners];

	page_waits(l->shared);
	if (fallback->generation == l->generation) /* it did so before, and tries again from time to time */
		return;
	*fallback = (struct fallback){ l->generation, sched_getcpu() };
	count(&counters_of(fallback->cpu)->fallen_back);
	tell(l, problem);
	page_arrive();
}

static void now_serves(struct listener *l, struct watch *watch, int cpu, bool again)
{
	struct fallback *fallback = &fallbacks[l - listeners];

	watch->cpu = cpu;
	atomic_store(&l->shared->seat[cpu].tended_ms, now_ms());
	if (!again) {
		page_waits_no_longer(l->shared);
		if (l->cloned)
			succession_mark(l);
		count(&counters_of(cpu)->adopted);
		page_arrive();
	}
	if (fallback->generation == l->generation)
		atomic_fetch_sub(&counters_of(fallback->cpu)->fallen_back, 1);
	fallback->generation = 0;
	adoptions[l - listeners] = (struct adoption){ l->generation, cpu, ACCEPTS_PER_GLOBAL_TURN };
	tell(l, NULL);
}

/*
 * nginx takes a listener with EPOLLEXCLUSIVE out of its epoll and puts it back after every 16 accepts. The worker has
 * kept its seat and its clone, so the epoll only has to watch the clone again.
 */
static bool resumes(struct listener *l, struct watch *watch, int cpu)
{
	if (!(watch->event.events & EPOLLEXCLUSIVE) || !l->cloned || !is_enrolled(&l->shared->seat[cpu]) ||
	    !clone_listens(l, cpu) || !clone_watch(l, cpu, watch->epfd, watch->event))
		return false;
	clone_is_no_neighbour(l, cpu, watch->epfd);
	watch->cpu = cpu;
	return true;
}

void adopt(struct listener *l, struct watch *watch)
{
	struct adoption *again = adoption_of(l);
	const char *problem = obstacle(l, watch);
	int cpu;

	if (!problem && again && resumes(l, watch, again->cpu))
		return;

	if (!problem) {
		cpu = again ? again->cpu : choose_cpu(l);
		problem = cpu < 0 ? "its workers are not pinned, and are fewer than the CPUs that they may use"
		                  : adopt_on(l, watch, cpu);
	}
	if (problem)
		falls_back(l, problem);
	else
		now_serves(l, watch, cpu, again);
}

/* The worker serves this CPU no longer. What it leaves behind is its neighbours' until somebody comes. */
void give_up(struct listener *l, struct watch *watch)
{
	int cpu = watch->cpu;

	if (cpu < 0)
		return;
	leave(&l->shared->seat[cpu]);
	if (l->cloned)
		clone_unwatch(l, cpu, watch->epfd);
	if (l->sharded)
		clone_marks_cpu(l->fd, -1);
	watch->cpu = -1;
	if (l->cloned && l->own_reuseport && !anybody_adopts(l))
		succession_unattended(l);
	page_depart();
}

/* The worker is pinned now, or elsewhere than it was, or may be. */
void reconsider(struct listener *l, struct watch *watch)
{
	cpu_set_t allowed;
	int pinned;

	if (l->sharded && watch->cpu >= 0 && succession_refusal(l))
		give_up(l, watch);
	if (!affinity_of_this_thread(&allowed))
		return;
	pinned = only_cpu(&allowed);
	if (watch->cpu >= 0 && (pinned < 0 || pinned == watch->cpu)) {
		affinity_renew(watch->cpu, &allowed);
		return;
	}
	if (watch->cpu >= 0 && obstacle(l, watch))
		return;
	if (watch->cpu >= 0) {
		give_up(l, watch);
		adoptions[l - listeners].generation = 0;
	}
	adopt(l, watch);
}

/* ---- leaving -------------------------------------------------------------------------------------------------- */

/*
 * This process accepts no longer. What waits in its clones is for the other workers that watch the listener, and if
 * there are none, for the next one: it waits as it would have waited in the application's one listener.
 */
static void leave_seat(struct seat *seat)
{
	if (leave_with_all_threads(seat) && !anybody_at(seat))
		page_depart();
}

void adopters_leave(struct listener *l)
{
	bool adopted = anybody_adopts(l);

	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		leave_seat(&l->shared->seat[cpu]);
	if (l->cloned && adopted && !anybody_adopts(l))
		succession_unattended(l);
	if (l->cloned)
		clones_close(l);
	l->cloned = false;
}

/* The application closes a descriptor that is ours (all above 2, say). Others may hold the clone open, and listen on. */
void clone_is_closed(int fd)
{
	struct listener *l = atomic_load(&listener_by_fd[fd]);

	for_each_clone(cpu, l) {
		if (atomic_load(&l->clone[cpu].fd) != fd)
			continue;
		leave_seat(&l->shared->seat[cpu]);
		if (clone_of(l, cpu) == fd && !anybody_adopts(l))
			clone_stop_listening(l, cpu);
		clone_forget(l, cpu);
		break;
	}
}
