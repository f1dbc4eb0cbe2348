// SPDX-License-Identifier: MIT
/*
 * Clones: sockets of the library that are bound to the address of a listener, one for each CPU.
 *
 * The process that calls listen() binds the clones, because it has the permission to bind there. A clone listens, and
 * so receives connections, only once a worker has adopted it. It has the same options as its listener (options.c) and
 * is in the same network namespace.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "affinity.h"
#include "clone.h"
#include "incoming_cpu.h"
#include "mark.h"
#include "options.h"
#include "real.h"
#include "seats.h"
#include "sockopt.h"

/* Clones may take one in this many of the descriptors that the process may have. */
#define DESCRIPTORS_SHARE 16

static atomic_int clones_open;

/* Makes an unbound socket of the listener's kind. */
static int socket_like(int fd)
{
	int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, AF_INET);

	return out_of_the_way(real.socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
}

bool clone_marks_cpu(int fd, int cpu)
{
	return set_int(fd, SOL_SOCKET, SO_INCOMING_CPU, cpu);
}

static int bind_clone(const struct listener *l, int cpu)
{
	int copy = socket_like(l->fd);

	if (copy < 0)
		return -1;
	errno = 0;
	if (in_same_namespace(l->fd, copy)) {
		options_copy(l->fd, copy); /* whether all were copied is checked at adoption */
		if (set_int(copy, SOL_SOCKET, SO_REUSEPORT, 1) && clone_marks_cpu(copy, cpu) &&
		    !real.bind(copy, (const struct sockaddr *)&l->address, sizeof(l->address)))
			return copy;
	}
	real.close(copy);
	return -1;
}

bool clone_add(struct listener *l, int cpu, int fd)
{
	struct clone *clone = &l->clone[cpu];
	struct stat status = { 0 };

	if (fd < 0)
		return false;
	if (fd >= MAX_FDS) {
		real.close(fd);
		return false;
	}
	clone->cookie = cookie_of(fd);
	if (!l->shared->seat[cpu].cookie) {
		fstat(fd, &status);
		l->shared->seat[cpu].inode = status.st_ino;
		l->shared->seat[cpu].cookie = clone->cookie;
	}
	atomic_store(&clone->watchers, 0);
	atomic_store(&clone->neighbour_epfd, -1);
	clone->pending_ms = 0;
	atomic_store(&clone->fd, fd);
	atomic_store(&listener_by_fd[fd], l);
	set_descriptor(fd, CLONE);
	CPU_SET(cpu, &l->cpus);
	if (l->cpus_end <= cpu)
		l->cpus_end = cpu + 1;
	atomic_fetch_add(&clones_open, 1);
	return true;
}

bool clone_bind(struct listener *l, int cpu)
{
	return clone_add(l, cpu, bind_clone(l, cpu));
}

static bool clone_for_each_cpu(struct listener *l, const cpu_set_t *cpus)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, cpus) && !clone_bind(l, cpu))
			return false;
	return true;
}

static bool descriptors_suffice(int more)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_NOFILE, &limit) &&
	       (rlim_t)(atomic_load(&clones_open) + more) <= limit.rlim_cur / DESCRIPTORS_SHARE;
}

/*
 * Is this descriptor still the clone? If not, the application has closed the clone without the library's knowledge, and
 * the number is another file's now.
 */
static bool is_ours(const struct clone *clone, int fd)
{
	return cookie_of(fd) == clone->cookie;
}

int clone_of(const struct listener *l, int cpu)
{
	int fd = atomic_load(&l->clone[cpu].fd);

	return fd >= 0 && is_ours(&l->clone[cpu], fd) ? fd : -1;
}

int cpu_of_clone(const struct listener *l, int fd)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].fd) == fd)
			return cpu;
	return -1;
}

bool is_clone(int fd)
{
	const struct listener *l = atomic_load(&listener_by_fd[fd]);
	int cpu = cpu_of_clone(l, fd);

	return cpu >= 0 && is_ours(&l->clone[cpu], fd);
}

static void note_watchers(struct listener *l, int cpu, int difference)
{
	atomic_fetch_add(&l->clone[cpu].watchers, difference);
	atomic_fetch_add(&l->watched, difference);
}

bool clone_watch(struct listener *l, int cpu, int epfd, struct epoll_event event)
{
	if (real.epoll_ctl(epfd, EPOLL_CTL_ADD, atomic_load(&l->clone[cpu].fd), &event))
		return errno == EEXIST;
	note_watchers(l, cpu, 1);
	return true;
}

struct epoll_event exclusively(struct epoll_event event)
{
	const uint32_t never = EPOLLPRI | EPOLLOUT | EPOLLRDHUP;
	const uint32_t allowed = EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE;

	if (!(event.events & ~(allowed | never)))
		event.events = (event.events & allowed) | EPOLLEXCLUSIVE;
	return event;
}

void clone_watch_again(struct listener *l, int cpu, int epfd, struct epoll_event event)
{
	int fd = atomic_load(&l->clone[cpu].fd);

	if (!seat_is_shared(&l->shared->seat[cpu]))
		event = exclusively(event);
	if (atomic_load(&l->clone[cpu].neighbour_epfd) == epfd)
		event.events &= ~(uint32_t)EPOLLEXCLUSIVE;
	if (!real.epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &event))
		real.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

void clone_is_no_neighbour(struct listener *l, int cpu, int epfd)
{
	if (atomic_compare_exchange_strong(&l->clone[cpu].neighbour_epfd, &epfd, -1))
		atomic_fetch_sub(&l->neighbours, 1);
}

void clone_unwatch(struct listener *l, int cpu, int epfd)
{
	struct epoll_event unused = { 0 };

	if (!real.epoll_ctl(epfd, EPOLL_CTL_DEL, atomic_load(&l->clone[cpu].fd), &unused))
		note_watchers(l, cpu, -1);
	clone_is_no_neighbour(l, cpu, epfd);
}

bool clone_listens(const struct listener *l, int cpu)
{
	return atomic_load(&l->shared->seat[cpu].listening) && get_int(clone_of(l, cpu), SOL_SOCKET, SO_ACCEPTCONN, 0);
}

bool listens_at_its_address(const struct listener *l)
{
	struct sockaddr_storage present = { 0 };
	socklen_t size = sizeof(present);

	return get_int(l->fd, SOL_SOCKET, SO_ACCEPTCONN, 0) &&
	       !getsockname(l->fd, (struct sockaddr *)&present, &size) &&
	       memcmp(&present, &l->address, sizeof(present)) == 0;
}

static void unwatch_everywhere(struct listener *l, int cpu, bool in_inherited)
{
	for (size_t i = 0; i < MAX_WATCHES; i++) {
		struct watch *watch = &l->watch[i];

		if (!watch->used || (watch->inherited && !in_inherited))
			continue;
		clone_unwatch(l, cpu, watch->epfd);
		if (watch->cpu == cpu)
			watch->cpu = -1;
	}
}

void clone_stop_listening(struct listener *l, int cpu)
{
	bool listens = clone_listens(l, cpu);

	unwatch_everywhere(l, cpu, true); /* it would report EPOLLHUP */
	atomic_store(&l->shared->seat[cpu].listening, 0);
	if (listens) /* else connections after a later listen() would inherit the shutdown */
		real.shutdown(clone_of(l, cpu), SHUT_RD);
}

void clone_forget(struct listener *l, int cpu)
{
	struct clone *clone = &l->clone[cpu];
	int fd = atomic_load(&clone->fd);

	if ((unsigned int)fd >= MAX_FDS)
		return;
	note_watchers(l, cpu, -atomic_load(&clone->watchers));
	if (atomic_exchange(&clone->neighbour_epfd, -1) >= 0)
		atomic_fetch_sub(&l->neighbours, 1);
	atomic_store(&clone->fd, -1);
	set_descriptor(fd, UNKNOWN);
	atomic_store(&listener_by_fd[fd], NULL);
	atomic_fetch_sub(&clones_open, 1);
}

void clones_close(struct listener *l)
{
	for_each_clone(cpu, l) {
		int fd = atomic_load(&l->clone[cpu].fd);

		/* While other processes hold the clone, it would stay in the epolls, and take their wake-ups. */
		if (clone_of(l, cpu) >= 0)
			unwatch_everywhere(l, cpu, false);
		clone_forget(l, cpu);
		if (is_ours(&l->clone[cpu], fd))
			real.close(fd);
	}
	CPU_ZERO(&l->cpus);
	l->cpus_end = 0;
}

enum reason clones_make(struct listener *l)
{
	cpu_set_t cpus;

	errno = 0;
	if (shared_cpus() == 1)
		return ONE_CPU;
	if (l->guarded)
		return OPTION;
	if (!affinity_own(&cpus))
		return AFFINITY_UNREADABLE;
	if (!descriptors_suffice(CPU_COUNT(&cpus)))
		return TOO_FEW_DESCRIPTORS;
	if (!kernel_honours_incoming_cpu())
		return errno ? KERNEL_NOT_TRIED : KERNEL_TOO_OLD;
	if (!set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 1))
		return REUSEPORT_REFUSED;
	if (clone_for_each_cpu(l, &cpus)) {
		l->cloned = true;
		mark_unless_creator(l);
		return NO_REASON;
	}
	clones_close(l);
	if (!is_marked(l->fd)) /* otherwise the clones of another process need it */
		set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, l->own_reuseport);
	return CANNOT_CLONE;
}
