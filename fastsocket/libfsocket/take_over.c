// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "adopt.h"
#include "balance.h"
#include "clone.h"
#include "mark.h"
#include "process.h"
#include "real.h"
#include "seats.h"
#include "sockopt.h"
#include "take_over.h"
#include "withdrawal.h"

static int cpu_with_inode(const struct listener *l, unsigned long inode)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (l->shared->seat[cpu].inode == inode)
			return cpu;
	return -1;
}

/* The descriptor of another process may be anything: check that it is a clone of this CPU on the same address. */
static bool is_clone_of(const struct listener *l, int cpu, int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);

	return cookie_of(fd) == l->shared->seat[cpu].cookie && !CPU_ISSET(cpu, &l->cpus) &&
	       get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP && get_int(fd, SOL_SOCKET, SO_REUSEPORT, 0) &&
	       !getsockname(fd, (struct sockaddr *)&address, &size) &&
	       memcmp(&address, &l->address, sizeof(address)) == 0;
}

/*
 * Gets a copy of a descriptor of the process behind pidfd. pidfd -1: this process itself was the program before, and
 * left its clones open.
 */
static int fetched(int pidfd, int number)
{
	return pidfd < 0 ? real.fcntl(number, F_DUPFD_CLOEXEC, 0)
	                 : (int)real.syscall(SYS_pidfd_getfd, pidfd, number, 0);
}

/* Whose clones are taken, and for which listener. */
struct taking {
	struct listener *l;
	int pidfd;
};

/* Always false: all clones are wanted, so visit_open_files() goes on. */
static bool take_clone(const struct open_file *file, void *context)
{
	const struct taking *taking = context;
	struct listener *l = taking->l;
	int number = atoi(file->name), fd, cpu;
	unsigned long inode;

	if (sscanf(file->target, "socket:[%lu]", &inode) != 1)
		return false;
	cpu = cpu_with_inode(l, inode);
	fd = cpu < 0 ? -1 : fetched(taking->pidfd, number);
	if (fd < 0)
		return false;
	if (!is_clone_of(l, cpu, fd)) {
		real.close(fd);
		return false;
	}
	clone_add(l, cpu, out_of_the_way(fd));
	if (taking->pidfd < 0)
		real.close(number);
	return false;
}

static bool has_all_that_listen(const struct listener *l)
{
	if (!l->shared)
		return false;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (atomic_load(&l->shared->seat[cpu].listening) && !CPU_ISSET(cpu, &l->cpus))
			return false;
	return l->cpus_end > 0;
}

/* The process may have the server's shared memory already. Otherwise it joins the other process's. */
static bool join_memory(struct listener *l, pid_t pid)
{
	l->shared = shared_find(l->cookie);
	if (!l->shared && shared_join(pid, l->cookie))
		l->shared = shared_find(l->cookie);
	return l->shared != NULL;
}

/*
 * Takes the clones that a process has. A seccomp filter that was there at the start may kill a process that calls
 * pidfd_getfd(), as systemd's SystemCallFilter=@system-service does. The successor then makes clones of its own, once
 * the old program has emptied its own.
 */
static void take_from(struct listener *l, pid_t pid)
{
	int pidfd = pid == getpid() || seccomp_at_start() ? -1 : (int)real.syscall(SYS_pidfd_open, pid, 0);

	if ((pidfd >= 0 || pid == getpid()) && join_memory(l, pid))
		visit_open_files(pid, take_clone, &(struct taking){ l, pidfd });
	if (pidfd >= 0)
		real.close(pidfd);
}

static void try_to_take_from(struct listener *l, pid_t candidate)
{
	pid_t pid = has_all_that_listen(l) ? 0 : process_of_our_user(candidate);

	if (pid && (pid != getpid() || l->origin == INHERITED_BY_EXEC))
		take_from(l, pid);
}

/*
 * The mark may name a worker that has died, until another worker notices. The other children of this process's parent
 * may have the same clones. proc(5), /proc/PID/task/TID/children.
 */
static void try_other_workers(struct listener *l)
{
	pid_t parent = getppid(), worker;
	char path[64];
	FILE *workers;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", parent, parent);
	workers = fopen(path, "re");
	while (workers && !has_all_that_listen(l) && fscanf(workers, "%d", &worker) == 1)
		try_to_take_from(l, worker);
	if (workers)
		fclose(workers);
}

/* The process was that program until now. Its threads have ended, though one of them seems to live: this one. */
static void leave_seats_of_the_program_before(const struct listener *l)
{
	for (int cpu = 0; l->origin == INHERITED_BY_EXEC && cpu < l->cpus_end; cpu++)
		seat_leave_with_all_threads(&l->shared->seat[cpu]);
}

bool take_over(struct listener *l)
{
	pid_t marked = marked_process(l->fd);

	/* This process may have them already: by the program before, in this process or in its parent. */
	try_to_take_from(l, getpid());
	try_to_take_from(l, marked);
	/* The marked process may have ended. Then the parent may have the clones, as nginx's old master does. */
	try_to_take_from(l, getppid());
	if (process_is_dead(marked))
		try_other_workers(l);
	if (!has_all_that_listen(l)) {
		if (l->shared)
			clones_close(l); /* those that could be fetched */
		l->shared = NULL;
		return false;
	}
	l->cloned = true;
	balance_load(l);
	leave_seats_of_the_program_before(l);
	/* A filter stays until a worker adopts, because this program may never wait for its clones. */
	if (atomic_load(&l->shared->unattended) && !has_adopter(l))
		mark_as_ours(l);
	else
		share_out(l);
	/*
	 * This comes last: until the mark is ours, a worker of the program before finds a reason to set the time again.
	 */
	atomic_store(&l->shared->withdrawn_ms, 0);
	return true;
}
