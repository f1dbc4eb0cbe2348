// SPDX-License-Identifier: MIT
/*
 * accept(): first from the clone that the thread has adopted, then from the application's own listener, which stays as
 * the fallback for a SYN whose CPU has no clone that listens.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/time.h>

#include "fsocket.h"

/* What the application calls, so that a seccomp filter sees the same call. */
static int accept_from(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	return flags ? real.accept4(fd, addr, len, flags) : real.accept(fd, addr, len);
}

static int accept_global(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int accepted = accept_from(fd, addr, len, flags);

	if (accepted >= 0)
		count(&counters_here()->accepted_global);
	return accepted;
}

/* -1 with *empty: nothing here, look elsewhere. -1 without: an error that the application has to see. */
static int accept_clone(struct listener *l, int cpu, struct sockaddr *addr, socklen_t *len, int flags, bool *empty)
{
	int fd = atomic_load_explicit(&l->clone[cpu].fd, memory_order_relaxed);
	int accepted = fd < 0 ? -1 : accept_from(fd, addr, len, flags);

	if (accepted < 0) /* EINVAL, EBADF, ENOTSOCK: the clone is gone, which is ours to bear */
		*empty = fd < 0 || errno == EAGAIN || errno == EINVAL || errno == EBADF || errno == ENOTSOCK;
	return accepted;
}

/*
 * Was the handshake handled on the CPU that reads? Where a CPU has no clone that listens, the kernel gives its SYNs to
 * any other; the accepted socket tells its CPU (sk_clone_lock() in net/core/sock.c).
 */
static bool is_local(const struct listener *l, int cpu, int accepted)
{
	return sched_getcpu() == cpu && (atomic_load_explicit(&l->covered, memory_order_relaxed) ||
	                                 get_int(accepted, SOL_SOCKET, SO_INCOMING_CPU, -1) == cpu);
}

static void count_accepted(const struct listener *l, int cpu, int accepted)
{
	count(is_local(l, cpu, accepted) ? &counters_of(cpu)->accepted_local : &counters_of(cpu)->accepted_global);
}

/* A worker that can accept no more says so, and its neighbours do not wait for it. */
static void note_failure(struct seat *seat, int accepted)
{
	bool fails = accepted < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM);

	if (!likely(atomic_load_explicit(&seat->failing, memory_order_relaxed) == fails) && (accepted >= 0 || fails))
		atomic_store(&seat->failing, fails);
}

static int accept_local(struct listener *l, int cpu, struct sockaddr *addr, socklen_t *len, int flags, bool *empty)
{
	int accepted = accept_clone(l, cpu, addr, len, flags, empty);

	if (accepted >= 0) {
		count(&l->shared->seat[cpu].accepted);
		count_accepted(l, cpu, accepted);
	}
	note_failure(&l->shared->seat[cpu], accepted);
	return accepted;
}

typedef bool (*is_to_try)(const struct listener *l, int cpu);

/* The clones that this process has as its own. */
static bool is_watched(const struct listener *l, int cpu)
{
	return atomic_load(&l->clone[cpu].watchers) && atomic_load(&l->clone[cpu].neighbour_epfd) < 0;
}

static bool is_neglected_neighbour(const struct listener *l, int cpu)
{
	return atomic_load(&l->clone[cpu].neighbour_epfd) >= 0 && is_neglected(l, cpu);
}

static int accept_from_some(struct listener *l, is_to_try wanted, struct sockaddr *addr, socklen_t *len, int flags,
                            bool *empty)
{
	int accepted = -1;

	*empty = true;
	for_each_clone(cpu, l) {
		if (!wanted(l, cpu))
			continue;
		if (wanted == is_watched)
			accepted = accept_local(l, cpu, addr, len, flags, empty);
		else if ((accepted = accept_clone(l, cpu, addr, len, flags, empty)) >= 0)
			count(&counters_here()->accepted_neighbour);
		if (accepted >= 0 || !*empty)
			break;
	}
	return accepted;
}

/* The application made its listener blocking after we had adopted: sleep until any of its queues has something. */
enum ready { NONE_READY, LISTENER_READY, CLONE_READY };

static enum ready wait_for_any(struct listener *l, int fd)
{
	struct pollfd queues[64] = { { .fd = fd, .events = POLLIN } };
	struct timeval timeout = { 0 };
	socklen_t size = sizeof(timeout);
	nfds_t n = 1;
	int ready, ms = -1;

	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].watchers) && n < COUNT(queues))
			queues[n++] = (struct pollfd){ .fd = atomic_load(&l->clone[cpu].fd), .events = POLLIN };
	if (!real.getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size) && (timeout.tv_sec || timeout.tv_usec))
		ms = (int)(timeout.tv_sec * 1000 + timeout.tv_usec / 1000);
	ready = real.poll(queues, n, ms);
	if (ready == 0)
		errno = EAGAIN;
	if (ready <= 0)
		return NONE_READY;
	return queues[0].revents ? LISTENER_READY : CLONE_READY;
}

enum accepted { ACCEPTED_OR_FAILED, ALL_EMPTY };

/* The thread has a clone of its own. */
static enum accepted try_own(struct listener *l, struct adoption *mine, int fd, struct sockaddr *addr, socklen_t *len,
                             int flags, int *ret_accepted)
{
	bool empty = true;
	int accepted = -1;

	if (--mine->until_global_turn == 0) {
		mine->until_global_turn = ACCEPTS_PER_GLOBAL_TURN;
		if (!l->blocks)
			accepted = accept_global(fd, addr, len, flags);
	}
	if (accepted < 0)
		accepted = accept_local(l, mine->cpu, addr, len, flags, &empty);
	if (accepted < 0 && empty && atomic_load(&l->neighbours))
		accepted = accept_from_some(l, is_neglected_neighbour, addr, len, flags, &empty);
	*ret_accepted = accepted;
	return accepted < 0 && empty ? ALL_EMPTY : ACCEPTED_OR_FAILED;
}

/* The thread has none, but the process may. */
static enum accepted try_any(struct listener *l, struct sockaddr *addr, socklen_t *len, int flags, int *ret_accepted)
{
	bool empty = true;

	*ret_accepted = -1;
	if (atomic_load(&l->watched))
		*ret_accepted = accept_from_some(l, is_watched, addr, len, flags, &empty);
	return *ret_accepted < 0 && empty ? ALL_EMPTY : ACCEPTED_OR_FAILED;
}

/* Where the listener itself has nothing, what another worker has left behind is for a thread without a clone. */
static int accept_last(struct listener *l, bool has_own, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int accepted = accept_global(fd, addr, len, flags), error = errno;
	bool empty;

	if (accepted >= 0 || has_own || errno != EAGAIN)
		return accepted;
	accepted = accept_from_some(l, is_neglected, addr, len, flags, &empty);
	if (accepted < 0 && empty)
		errno = error;
	return accepted;
}

static int accept_shard(struct listener *l, struct adoption *mine, int fd, struct sockaddr *addr, socklen_t *len,
                        int flags)
{
	int accepted = accept_from(fd, addr, len, flags);

	if (accepted >= 0 && mine)
		count_accepted(l, mine->cpu, accepted);
	else if (accepted >= 0)
		count(&counters_here()->accepted_global);
	return accepted;
}

int accept_any(struct listener *l, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct adoption *mine = adoption_of(l);
	int saved_errno = errno, accepted = -1;

	if (l->sharded || !l->cloned)
		return accept_shard(l, l->sharded ? mine : NULL, fd, addr, len, flags);
	while ((mine ? try_own(l, mine, fd, addr, len, flags, &accepted) : try_any(l, addr, len, flags, &accepted)) ==
	       ALL_EMPTY) {
		bool sleeps = l->blocks && atomic_load(&l->watched);
		enum ready ready = sleeps ? wait_for_any(l, fd) : LISTENER_READY;

		if (ready == CLONE_READY)
			continue;
		if (ready == LISTENER_READY)
			accepted = accept_last(l, mine, fd, addr, len, flags);
		break;
	}
	if (accepted >= 0)
		errno = saved_errno;
	return accepted;
}
