// SPDX-License-Identifier: MIT
/*
 * Clones: sockets of the library that are bound to the address of a listener, one for each CPU.
 *
 * A clone is bound by the process that may bind there, in listen(). It listens, and so receives something, only once a
 * worker has adopted it. It has to be the listener's equal (options.c) and in the listener's network namespace.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsocket.h"

/* Descriptors that a select()-style or fd-counting application is unlikely to have plans for. */
#define OUR_FD_FLOOR 512
/* Clones may take this part of the descriptors that the process may have. */
#define DESCRIPTORS_SHARE 16

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static atomic_int clones_open;

bool set_int(int fd, int level, int name, int value)
{
	return real.setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

int get_int(int fd, int level, int name, int missing)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return real.getsockopt(fd, level, name, &value, &size) ? missing : value;
}

static uint64_t get_cookie(int fd, int name)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	return real.getsockopt(fd, SOL_SOCKET, name, &cookie, &size) ? 0 : cookie;
}

uint64_t cookie_of(int fd)
{
	return get_cookie(fd, SO_COOKIE);
}

int out_of_the_way(int low)
{
	int high = low < 0 ? -1 : real.fcntl(low, F_DUPFD_CLOEXEC, OUR_FD_FLOOR);

	if (high < 0) /* the descriptor limit is below the floor */
		return low;
	real.close(low);
	return high;
}

/* ---- making one ----------------------------------------------------------------------------------------------- */

/* SO_NETNS_COOKIE is there since Linux 5.14. Without it there are no clones. */
static bool in_same_namespace(int fd, int other)
{
	uint64_t cookie = get_cookie(fd, SO_NETNS_COOKIE);

	return cookie && cookie == get_cookie(other, SO_NETNS_COOKIE);
}

/* An unbound socket of the listener's kind. */
static int socket_like(int fd)
{
	int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, AF_INET);

	return out_of_the_way(real.socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
}

bool clone_marks_cpu(int fd, int cpu)
{
	return set_int(fd, SOL_SOCKET, SO_INCOMING_CPU, cpu);
}

static int bind_clone(int fd, int cpu)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	int copy = socket_like(fd);

	if (copy < 0)
		return -1;
	errno = 0;
	if (copy < MAX_FDS && in_same_namespace(fd, copy) && !getsockname(fd, (struct sockaddr *)&address, &size)) {
		options_copy(fd, copy); /* what is missing then is seen at adoption */
		if (set_int(copy, SOL_SOCKET, SO_REUSEPORT, 1) && clone_marks_cpu(copy, cpu) &&
		    !real.bind(copy, (struct sockaddr *)&address, size))
			return copy;
	}
	real.close(copy);
	return -1;
}

bool clone_add(struct listener *l, int cpu, int fd)
{
	struct clone *clone = &l->clone[cpu];
	struct stat status;

	if (fd < 0)
		return false;
	clone->cookie = cookie_of(fd);
	if (!l->shared->seat[cpu].cookie && !fstat(fd, &status)) {
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
	return clone_add(l, cpu, bind_clone(l->fd, cpu));
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

const char *clones_make(struct listener *l)
{
	cpu_set_t cpus;

	errno = 0;
	if (l->guarded)
		return TEXT_OPTION;
	if (!affinity_own(&cpus))
		return "the CPU affinity cannot be read";
	if (!descriptors_suffice(CPU_COUNT(&cpus)))
		return "clones for all CPUs would take more than a 16th of the descriptors (ulimit -n)";
	if (!kernel_honours_incoming_cpu())
		return errno ? "it could not be tried whether the kernel steers by SO_INCOMING_CPU"
		             : "this kernel ignores SO_INCOMING_CPU among SO_REUSEPORT listeners (Linux 6.2 or a backport has it)";
	if (!set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 1))
		return "SO_REUSEPORT is refused";
	if (clone_for_each_cpu(l, &cpus)) {
		l->cloned = true;
		succession_mark(l);
		return NULL;
	}
	clones_close(l);
	if (!succession_is_marked(l->fd)) /* else the clones of another process need it */
		set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, l->own_reuseport);
	return "the listener cannot be cloned";
}

/* ---- one that is there ---------------------------------------------------------------------------------------- */

/* False when it was closed behind our back: what has that number now is the application's. */
static bool is_ours(const struct clone *clone, int fd)
{
	return cookie_of(fd) == clone->cookie;
}

int clone_of(const struct listener *l, int cpu)
{
	int fd = atomic_load(&l->clone[cpu].fd);

	return fd >= 0 && is_ours(&l->clone[cpu], fd) ? fd : -1;
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

/* Leave the reuseport group again. What waits there is reset: only for a clone that nobody else can accept from. */
void clone_stop_listening(struct listener *l, int cpu)
{
	int fd = clone_of(l, cpu);

	atomic_store(&l->shared->seat[cpu].listening, 0);
	if (fd >= 0)
		real.shutdown(fd, SHUT_RD);
}

void clone_forget(struct listener *l, int cpu)
{
	struct clone *clone = &l->clone[cpu];
	int fd = atomic_load(&clone->fd);

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

		clone_forget(l, cpu);
		if (is_ours(&l->clone[cpu], fd))
			real.close(fd);
	}
	CPU_ZERO(&l->cpus);
	l->cpus_end = 0;
}

/* A new backlog, or the end of a pause that shutdown() began: for the clones that somebody accepts from, too. */
void clones_listen_again(struct listener *l, int backlog)
{
	l->backlog = backlog;
	if (!l->cloned)
		return;
	for_each_clone(cpu, l) {
		int fd = clone_of(l, cpu);

		if (fd >= 0 && atomic_load(&l->shared->seat[cpu].listening))
			real.listen(fd, backlog);
	}
}

/* An application that pauses its listener by shutdown() pauses its clones. */
void clones_shutdown(struct listener *l, int how)
{
	struct held held;

	lock_tables(&held);
	for_each_clone(cpu, l) {
		int fd = l->cloned ? clone_of(l, cpu) : -1;

		if (fd >= 0)
			real.shutdown(fd, how);
	}
	unlock_tables(&held);
}

/* ---- what the application sets on its listener ------------------------------------------------------------------ */

static bool is_about_the_group(int level, int name)
{
	return level == SOL_SOCKET &&
	       (name == SO_REUSEPORT || name == SO_INCOMING_CPU || name == SO_ATTACH_REUSEPORT_CBPF ||
	        name == SO_ATTACH_REUSEPORT_EBPF || name == SO_DETACH_REUSEPORT_BPF);
}

/* Clones that do not listen yet get it, too: the one that adopts them may lack the privilege to set it. */
static bool clones_follow(struct listener *l, int level, int name, const void *value, socklen_t size)
{
	bool follow = true;

	for_each_clone(cpu, l) {
		int fd = clone_of(l, cpu);

		if (fd < 0)
			continue;
		if (!is_about_the_group(level, name))
			real.setsockopt(fd, level, name, value, size);
		follow = option_follows(l->fd, fd, level, name) && follow;
	}
	return follow;
}

void clones_setsockopt(struct listener *l, int level, int name, const void *value, socklen_t size)
{
	struct held held;

	lock_tables(&held);
	if (level == SOL_SOCKET && name == SO_REUSEPORT) {
		l->own_reuseport = get_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 0);
		if (l->cloned)
			set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 1);
	} else {
		bool can = option_can_be_copied(l->fd, level, name);

		l->guarded = l->guarded || !can;
		if ((l->cloned && !clones_follow(l, level, name, value, size)) || !can)
			succession_refuse(l, REFUSED_BY_OPTION);
	}
	unlock_tables(&held);
}
