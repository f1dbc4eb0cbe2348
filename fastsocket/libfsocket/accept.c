// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/time.h>

#include "accept.h"
#include "adopt.h"
#include "neighbours.h"
#include "pulse.h"
#include "real.h"
#include "seats.h"
#include "sockopt.h"

/* Makes the same system call as the application does, because a seccomp filter may allow no other. */
static int accept_from(int fd, const struct acceptance *asked)
{
	return asked->flags ? real.accept4(fd, asked->addr, asked->len, asked->flags)
	                    : real.accept(fd, asked->addr, asked->len);
}

/*
 * How an attempt to accept from one queue went. EMPTY: another queue is tried. FAILED: the application sees errno.
 * ACCEPTED: there is a connection.
 */
enum outcome { ACCEPTED, FAILED, EMPTY };
struct attempt {
	enum outcome outcome;
	int connection;
};

static struct attempt attempt_of(int connection, bool is_empty)
{
	return (struct attempt){ connection >= 0 ? ACCEPTED : is_empty ? EMPTY : FAILED, connection };
}

static const struct attempt nothing_there = { EMPTY, -1 };

static struct attempt accept_global(const struct acceptance *asked)
{
	struct attempt attempt = attempt_of(accept_from(asked->fd, asked), false);

	if (attempt.outcome == ACCEPTED)
		count(&counters_here()->accepted_global);
	else if (errno == EAGAIN)
		attempt.outcome = EMPTY;
	return attempt;
}

/* EINVAL, EBADF, ENOTSOCK: the clone is gone. That is not the application's error: other queues are tried. */
static struct attempt accept_clone(const struct acceptance *asked, int cpu)
{
	int fd = atomic_load_explicit(&asked->l->clone[cpu].fd, memory_order_relaxed);
	int connection;

	if (fd < 0)
		return nothing_there;
	connection = accept_from(fd, asked);
	return attempt_of(connection, connection < 0 && (errno == EAGAIN || errno == EINVAL || errno == EBADF ||
	                                                 errno == ENOTSOCK));
}

/*
 * Was the handshake handled on the CPU of the thread that accepts? If a CPU has no clone that listens, the kernel gives
 * its SYNs to any other clone. The program of balance.h gives a clone SYNs of other CPUs, too. The accepted socket
 * tells its CPU (sk_clone_lock() in net/core/sock.c).
 */
static bool is_local(const struct listener *l, int cpu, int connection)
{
	bool all_are_local = atomic_load_explicit(&l->covered, memory_order_relaxed) && !pulse_is_mixed(cpu);

	return sched_getcpu() == cpu && (all_are_local || get_int(connection, SOL_SOCKET, SO_INCOMING_CPU, -1) == cpu);
}

static void count_accepted(const struct listener *l, int cpu, int connection)
{
	count(is_local(l, cpu, connection) ? &counters_of(cpu)->accepted_local : &counters_of(cpu)->accepted_global);
}

/*
 * Tells the neighbours whether the worker's accept() fails, so that they do not wait for a worker that cannot accept.
 */
static void note_failure(struct seat *seat, const struct attempt *attempt)
{
	bool fails = attempt->outcome == FAILED;

	if (!likely(atomic_load_explicit(&seat->failing, memory_order_relaxed) == fails) && attempt->outcome != EMPTY)
		atomic_store(&seat->failing, fails);
}

static struct attempt accept_local(const struct acceptance *asked, int cpu)
{
	struct attempt attempt = accept_clone(asked, cpu);
	struct seat *seat = &asked->l->shared->seat[cpu];

	if (attempt.outcome == ACCEPTED) {
		pulse_accepted();
		count(&seat->accepted);
		count_accepted(asked->l, cpu, attempt.connection);
	}
	note_failure(seat, &attempt);
	return attempt;
}

static struct attempt accept_neighbour(const struct acceptance *asked, int cpu)
{
	struct attempt attempt = accept_clone(asked, cpu);

	if (attempt.outcome == ACCEPTED) {
		struct cpu_counters *giver = counters_of(cpu);

		count(&counters_here()->accepted_neighbour);
		count(seat_is_taken(&asked->l->shared->seat[cpu]) ? &giver->given_late : &giver->given_left);
	}
	return attempt;
}

static bool is_neglected_neighbour(const struct listener *l, int cpu)
{
	return atomic_load(&l->clone[cpu].neighbour_epfd) >= 0 && is_neglected(l, cpu);
}

/* Accepts from the first clone that is wanted and not empty. */
static struct attempt accept_from_some(const struct acceptance *asked, bool (*wanted)(const struct listener *, int),
                                       struct attempt (*accept_one)(const struct acceptance *, int))
{
	for_each_clone(cpu, asked->l) {
		struct attempt attempt = wanted(asked->l, cpu) ? accept_one(asked, cpu) : nothing_there;

		if (attempt.outcome != EMPTY)
			return attempt;
	}
	return nothing_there;
}

enum ready { NONE_READY, LISTENER_READY, CLONE_READY };

/*
 * For an application whose listener blocks, perhaps only since a worker has adopted, or since another program had the
 * listener: sleeps until the listener, a clone that this process watches, or a clone without a worker has a connection.
 */
static enum ready wait_for_any(const struct acceptance *asked)
{
	struct pollfd queues[64] = { { .fd = asked->fd, .events = POLLIN } };
	struct timeval timeout = { 0 };
	socklen_t size = sizeof(timeout);
	nfds_t n = 1;
	int ready, ms = -1;

	for_each_clone(cpu, asked->l)
		if ((atomic_load(&asked->l->clone[cpu].watchers) || is_abandoned(asked->l, cpu)) && n < COUNT(queues))
			queues[n++] = (struct pollfd){ .fd = atomic_load(&asked->l->clone[cpu].fd), .events = POLLIN };
	if (n == 1)
		return LISTENER_READY;
	real.getsockopt(asked->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size);
	if (timeout.tv_sec || timeout.tv_usec)
		ms = (int)(timeout.tv_sec * 1000 + (timeout.tv_usec + 999) / 1000);
	ready = real.poll(queues, n, ms);
	if (ready == 0)
		errno = EAGAIN;
	if (ready <= 0)
		return NONE_READY;
	return queues[0].revents ? LISTENER_READY : CLONE_READY;
}

static bool has_global_turn(struct adoption *mine)
{
	if (likely(--mine->until_global_turn))
		return false;
	mine->until_global_turn = ACCEPTS_PER_GLOBAL_TURN;
	return true;
}

/*
 * Tries to accept for a thread that has a clone of its own: from that clone, and then from neglected clones of
 * neighbours. At its global turn the thread tries the listener first.
 */
static struct attempt try_own(const struct acceptance *asked, struct adoption *mine)
{
	struct attempt attempt = nothing_there;

	if (has_global_turn(mine) && !asked->l->blocks)
		attempt = accept_global(asked);
	if (attempt.outcome != ACCEPTED)
		attempt = accept_local(asked, mine->cpu);
	if (attempt.outcome == EMPTY && atomic_load(&asked->l->neighbours))
		attempt = accept_from_some(asked, is_neglected_neighbour, accept_neighbour);
	return attempt;
}

/* Tries to accept for a thread without a clone, from the clones that other threads of its process have adopted. */
static struct attempt try_any(const struct acceptance *asked)
{
	return atomic_load(&asked->l->watched) ? accept_from_some(asked, is_own, accept_local) : nothing_there;
}

/*
 * Threads may share an epoll. If another one of them has got the watch of the listener meanwhile, its clone is in the
 * epoll, and this thread is told of connections there.
 */
static bool has_lost_its_clone(const struct listener *l, const struct adoption *mine)
{
	return atomic_load(&l->clone[mine->cpu].tenure) != mine->tenure;
}

static bool listens(const struct listener *l, int cpu)
{
	return atomic_load(&l->shared->seat[cpu].listening);
}

static bool waits_by_epoll(const struct listener *l)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used && !l->watch[i].inherited)
			return true;
	return false;
}

/*
 * Accepts from the listener itself. If it is empty, a thread without a clone accepts what another worker has left
 * behind in a clone. If no thread of a process waits for the listener by epoll, a worker may have told the process to
 * accept: it accepts from any clone.
 */
static struct attempt try_last(const struct acceptance *asked, const struct adoption *mine)
{
	struct attempt attempt = accept_global(asked);
	int error = errno;

	if (attempt.outcome != EMPTY || (mine && !has_lost_its_clone(asked->l, mine)))
		return attempt;
	attempt = mine ? try_any(asked)
	               : accept_from_some(asked, waits_by_epoll(asked->l) ? is_neglected : listens, accept_neighbour);
	if (attempt.outcome == EMPTY)
		errno = error;
	return attempt;
}

static int accept_shard(const struct acceptance *asked, const struct adoption *mine)
{
	int connection = accept_from(asked->fd, asked);

	if (connection >= 0 && mine)
		count_accepted(asked->l, mine->cpu, connection);
	else if (connection >= 0)
		count(&counters_here()->accepted_global);
	return connection;
}

/* Tries the clones first, then the listener. */
static struct attempt try_all(const struct acceptance *asked, struct adoption *mine)
{
	struct attempt attempt;
	enum ready ready;

	do {
		attempt = mine ? try_own(asked, mine) : try_any(asked);
		if (attempt.outcome == EMPTY && asked->l->blocks)
			attempt = accept_from_some(asked, is_abandoned, accept_neighbour);
		if (attempt.outcome != EMPTY)
			return attempt;
		ready = asked->l->blocks ? wait_for_any(asked) : LISTENER_READY;
	} while (ready == CLONE_READY);
	return ready == LISTENER_READY ? try_last(asked, mine) : attempt;
}

int accept_any(const struct acceptance *asked)
{
	struct adoption *mine = adoption_of(asked->l);
	int saved_errno = errno;
	struct attempt attempt;

	if (asked->l->sharded || !asked->l->cloned)
		return accept_shard(asked, asked->l->sharded ? mine : NULL);
	attempt = try_all(asked, mine);
	if (attempt.outcome == ACCEPTED)
		errno = saved_errno;
	return attempt.connection;
}
