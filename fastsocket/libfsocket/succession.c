// SPDX-License-Identifier: MIT
/*
 * A listener that goes to another program: over a Unix socket (HAProxy's seamless reload) or by exec (nginx's binary
 * upgrade, workers that are started as programs). Both then have the application's listener, but only the old one has
 * its clones, and when it ends, what waits in them would be reset.
 *
 * So the new program gets them: on the application's listener is written whose it is, in SO_INCOMING_CPU, which no
 * packet's CPU ever equals, and pidfd_getfd(2) duplicates the clones. It maps the page, too, and is from then on as if
 * forked from the old one. That takes the permission to trace it: root, or the same user.
 *
 * Whoever passes a listener over a Unix socket cannot know whether the other side does that. So the clones are
 * withdrawn first: a classic BPF program on the reuseport group sends every new connection to its first member, which
 * is the application's listener, while the old program still accepts what its clones hold. Who takes over takes the
 * filter away. Source: Linux net/core/sock_reuseport.c, reuseport_select_sock().
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "fsocket.h"

/* Longer than a handshake that began before the filter was there, then the successor's turn with some to spare. */
#define EMPTYING_MS 2000
#define SUCCEEDING_MS 3000

#define LOCK_TRIES 100 /* a millisecond each */

/* On the listener: that it has clones, whether they are withdrawn, and a process that has them (22 bits, proc(5)). */
#define MARK 0x40000000
#define WITHDRAWN 0x20000000
#define PID_MASK 0x003fffff

static int mark_on(int fd)
{
	int mark = get_int(fd, SOL_SOCKET, SO_INCOMING_CPU, -1);

	return mark >= 0 && mark & MARK ? mark : 0;
}

bool succession_is_marked(int fd)
{
	return mark_on(fd) != 0;
}

static bool is_dead(pid_t pid)
{
	return kill(pid, 0) && errno == ESRCH;
}

static void mark_with(const struct listener *l, pid_t pid)
{
	set_int(l->fd, SOL_SOCKET, SO_INCOMING_CPU, MARK | (pid & PID_MASK));
}

static void mark(const struct listener *l)
{
	mark_with(l, getpid());
}

/*
 * The process that listened stays in the mark while it lives and has the listener: its workers may have dropped their
 * privileges.
 */
void succession_mark(const struct listener *l)
{
	int present = mark_on(l->fd);
	pid_t pid = present & PID_MASK;

	if (!(present & WITHDRAWN) && (pid != atomic_load(&l->shared->creator) || is_dead(pid)))
		mark(l);
}

/*
 * Workers that are programs may all listen on the same socket at the same moment; one is to make the clones. A name in
 * the abstract namespace (unix(7)) is the lock, because a process that dies lets go of it. -1: go on without.
 */
int succession_lock(uint64_t cookie)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int length = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "fsocket/%" PRIu64, cookie);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
	int fd = real.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (int tries = 0; fd >= 0 && tries < LOCK_TRIES; tries++) {
		if (!real.bind(fd, (const struct sockaddr *)&name, size) || errno != EADDRINUSE)
			break;
		real.poll(NULL, 0, 1);
	}
	return fd;
}

void succession_unlock(int lock)
{
	if (lock >= 0)
		real.close(lock);
}

/*
 * The filter belongs to the group. Where the application set SO_REUSEPORT itself, another server's listeners may come
 * into the group, and would get nothing. False: there is no group, or it is not for us to filter.
 */
static bool attach_filter(const struct listener *l)
{
	struct sock_filter first[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog program = { .len = COUNT(first), .filter = first };

	return !l->own_reuseport && !l->guarded && group_is_ours(l) &&
	       !real.setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

static void detach_filter(const struct listener *l)
{
	if (!l->own_reuseport && !l->guarded)
		set_int(l->fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0);
}

static bool is_empty(const struct listener *l, int cpu)
{
	struct pollfd queue = { .fd = clone_of(l, cpu), .events = POLLIN };

	return real.poll(&queue, 1, 0) == 0;
}

/* Another server's listeners in the group shall get their part while this one has no worker. */
static void leave_group(struct listener *l)
{
	for_each_clone(cpu, l) {
		clone_marks_cpu(clone_of(l, cpu), -1);
		if (atomic_load(&l->shared->seat[cpu].listening) && is_empty(l, cpu))
			clone_stop_listening(l, cpu);
	}
}

/* Whoever may still accept without epoll shall not wait for what arrives in a clone that nobody looks at. */
void succession_unattended(struct listener *l)
{
	if (attach_filter(l))
		atomic_store(&l->shared->unattended, 1);
	else if (l->own_reuseport)
		leave_group(l);
}

void succession_attended(const struct listener *l)
{
	if (atomic_exchange(&l->shared->unattended, 0) && !(mark_on(l->fd) & WITHDRAWN))
		detach_filter(l);
}

static bool send_all_to_first(const struct listener *l)
{
	return attach_filter(l) && set_int(l->fd, SOL_SOCKET, SO_INCOMING_CPU, mark_on(l->fd) | WITHDRAWN);
}

static void share_out(const struct listener *l)
{
	detach_filter(l);
	mark(l);
}

static bool any_listens(const struct listener *l)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->shared->seat[cpu].listening))
			return true;
	return false;
}

bool succession_withdrawn(const struct listener *l)
{
	return atomic_load(&l->shared->withdrawn_ms) != 0;
}

static void withdraw(struct listener *l)
{
	if (l->cloned && any_listens(l) && !succession_withdrawn(l) && send_all_to_first(l))
		atomic_store(&l->shared->withdrawn_ms, now_ms());
}

/* Without a filter clones get their part of what comes by chance, until they are empty. */
static void withdraw_without_filter(struct listener *l)
{
	for_each_clone(cpu, l)
		clone_marks_cpu(atomic_load(&l->clone[cpu].fd), -1);
	atomic_store(&l->shared->withdrawn_ms, now_ms());
}

enum refusal succession_refusal(const struct listener *l)
{
	return (enum refusal)atomic_load(&l->shared->refused);
}

void succession_refuse(struct listener *l, enum refusal why)
{
	uint32_t not_yet = NOT_REFUSED;

	if (!l->cloned && !l->sharded)
		return;
	atomic_compare_exchange_strong(&l->shared->refused, &not_yet, why);
	if (!l->cloned || !any_listens(l) || succession_withdrawn(l))
		return;
	withdraw(l);
	if (!succession_withdrawn(l))
		withdraw_without_filter(l);
	page_depart();
}

void succession_allow(struct listener *l, enum refusal why)
{
	uint32_t present = why;

	atomic_compare_exchange_strong(&l->shared->refused, &present, NOT_REFUSED);
}

/* ---- the new program ------------------------------------------------------------------------------------------- */

static int cpu_with_inode(const struct listener *l, unsigned long inode)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (l->shared->seat[cpu].inode == inode && inode)
			return cpu;
	return -1;
}

/* What the other process calls a clone may be anything else: a clone listens on the same address, for its CPU. */
static bool is_clone_of(const struct listener *l, int cpu, int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);

	return cookie_of(fd) == l->shared->seat[cpu].cookie && !CPU_ISSET(cpu, &l->cpus) &&
	       get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP && get_int(fd, SOL_SOCKET, SO_REUSEPORT, 0) &&
	       !getsockname(fd, (struct sockaddr *)&address, &size) &&
	       memcmp(&address, &l->address, sizeof(address)) == 0;
}

/* pidfd -1: the process was another program until a moment ago, and has left its clones to us. */
static int fetched(int pidfd, int number)
{
	return pidfd < 0 ? real.fcntl(number, F_DUPFD_CLOEXEC, 0) : (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
}

static void take_clone(struct listener *l, int pidfd, int number, unsigned long inode)
{
	int cpu = cpu_with_inode(l, inode);
	int fd = cpu < 0 ? -1 : fetched(pidfd, number);

	if (fd < 0)
		return;
	if (!is_clone_of(l, cpu, fd)) {
		real.close(fd);
		return;
	}
	clone_add(l, cpu, out_of_the_way(fd));
	if (pidfd < 0)
		real.close(number);
}

static void take_clones(struct listener *l, pid_t pid, int pidfd)
{
	char path[64], target[64];
	struct dirent *entry;
	unsigned long inode;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	directory = opendir(path);
	while (directory && (entry = readdir(directory))) {
		ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);

		target[length > 0 ? length : 0] = '\0';
		if (sscanf(target, "socket:[%lu]", &inode) == 1)
			take_clone(l, pidfd, atoi(entry->d_name), inode);
	}
	if (directory)
		closedir(directory);
}

static bool has_all_that_listen(const struct listener *l)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (atomic_load(&l->shared->seat[cpu].listening) && !CPU_ISSET(cpu, &l->cpus))
			return false;
	return l->cpus_end > 0;
}

/* Where the page is ours already, its owner is one of us, or there is nothing to join. */
static bool join_page(struct listener *l, pid_t pid)
{
	l->shared = page_find(l->cookie);
	if (!l->shared && page_join(pid, l->cookie))
		l->shared = page_find(l->cookie);
	return l->shared != NULL;
}

static void take_from(struct listener *l, pid_t pid)
{
	int pidfd = pid == getpid() ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);

	if ((pidfd >= 0 || pid == getpid()) && join_page(l, pid))
		take_clones(l, pid, pidfd);
	if (pidfd >= 0)
		real.close(pidfd);
}

bool succession_take_over(struct listener *l)
{
	/* The marked process may have ended; then our own parent, as nginx's old master is, may have the clones. */
	const pid_t candidates[] = { mark_on(l->fd) & PID_MASK, getppid() };

	for (size_t i = 0; i < COUNT(candidates) && !l->shared; i++) {
		pid_t pid = page_process_of_our_user(candidates[i]);

		if (pid && (pid != getpid() || l->origin == INHERITED_BY_EXEC))
			take_from(l, pid);
	}
	if (!l->shared || !has_all_that_listen(l)) {
		if (l->shared)
			adopters_leave(l);
		l->shared = NULL;
		return false;
	}
	l->cloned = true;
	atomic_store(&l->shared->withdrawn_ms, 0);
	share_out(l);
	return true;
}

void succession_waits(struct listener *l)
{
	uint64_t not_yet = 0;

	if (l->origin == LISTENED || any_listens(l))
		return;
	if (mark_on(l->fd) & WITHDRAWN || send_all_to_first(l))
		atomic_compare_exchange_strong(&l->shared->resume_ms, &not_yet, now_ms() + SUCCEEDING_MS);
}

/* ---- the old program ------------------------------------------------------------------------------------------- */

static void close_empty_clones(struct listener *l)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->shared->seat[cpu].listening) && is_empty(l, cpu))
			clone_stop_listening(l, cpu);
}

/* Does the mark name a process that lives and is none of ours? */
static bool succeeded(const struct listener *l)
{
	pid_t pid = mark_on(l->fd) & PID_MASK;

	return pid != getpid() && !page_has_process(l->shared, pid) && !is_dead(pid);
}

bool succession_tend(struct listener *l, uint64_t now)
{
	uint64_t resume = atomic_load(&l->shared->resume_ms);
	uint64_t withdrawn = atomic_load(&l->shared->withdrawn_ms);

	if (resume && now < resume)
		return false;
	if (resume && atomic_compare_exchange_strong(&l->shared->resume_ms, &resume, 0)) {
		share_out(l);
		return false;
	}
	if (!withdrawn && mark_on(l->fd) & WITHDRAWN) {
		withdrawn = now;
		atomic_store(&l->shared->withdrawn_ms, withdrawn);
	}
	if (withdrawn && now - withdrawn > EMPTYING_MS)
		close_empty_clones(l);
	if (withdrawn && now - withdrawn > SUCCEEDING_MS && !succession_refusal(l) && !succeeded(l)) {
		atomic_store(&l->shared->withdrawn_ms, 0);
		share_out(l);
		return false;
	}
	if (!withdrawn && is_dead(mark_on(l->fd) & PID_MASK))
		succession_mark(l); /* a successor finds a process that lives */
	return withdrawn != 0;
}

/* ---- descriptors on their way ---------------------------------------------------------------------------------- */

/*
 * The kernel has accepted the message by now, so it can be read, and control data is where it says. Lengths are bounded
 * all the same: the application may change it at any time.
 */
static void for_each_passed(const struct msghdr *message, void (*visit)(int fd))
{
	struct msghdr *readable = (struct msghdr *)message; /* CMSG_NXTHDR() wants it so, and changes nothing */

	for (struct cmsghdr *header = CMSG_FIRSTHDR(readable); header; header = CMSG_NXTHDR(readable, header)) {
		size_t room = (size_t)((char *)message->msg_control + message->msg_controllen - (char *)header);
		size_t length = header->cmsg_len < room ? header->cmsg_len : room;

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS || length < CMSG_LEN(0))
			continue;
		for (size_t i = 0; i < (length - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
			visit(fd);
		}
	}
}

/* The receiver may have taken over already, and then its process is in the mark. */
static void is_sent(int fd)
{
	struct listener *l = find_listener(fd);
	struct held held;

	fast_epoll_settle(fd);
	fast_epoll_shared(fd);
	if (settings.flow_deliver)
		flow_deliver_shared(fd);
	if (!l)
		return;
	lock_tables(&held);
	if (find_listener(fd) == l && l->cloned && !succeeded(l))
		withdraw(l);
	unlock_tables(&held);
}

static void is_received(int fd)
{
	if (descriptor(fd) != LISTENER && descriptor(fd) != CLONE)
		set_descriptor(fd, UNKNOWN);
	if (get_int(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
		listeners_discover(fd, RECEIVED);
}

void succession_sent(const struct msghdr *message)
{
	int saved_errno = errno;

	for_each_passed(message, is_sent);
	errno = saved_errno;
}

void succession_received(const struct msghdr *message)
{
	int saved_errno = errno;

	for_each_passed(message, is_received);
	errno = saved_errno;
}

/* ---- exec ------------------------------------------------------------------------------------------------------ */

static bool goes_along(const struct listener *l)
{
	int flags = l->generation && (l->cloned || l->sharded) ? real.fcntl(l->fd, F_GETFD) : -1;

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

/* A process that has a worker at one of the clones; 0: none has. */
static pid_t process_of_an_adopter(const struct listener *l)
{
	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		for (size_t i = 0; i < MAX_ADOPTERS; i++) {
			pid_t pid = (pid_t)(atomic_load(&l->shared->seat[cpu].adopter[i]) >> 32);

			if (pid && pid != getpid() && !is_dead(pid))
				return pid;
		}
	return 0;
}

static bool has_variable(char *const environment[], const char *assignment)
{
	size_t length = (size_t)(strchr(assignment, '=') - assignment) + 1;

	for (; *environment; environment++)
		if (strncmp(*environment, assignment, length) == 0)
			return true;
	return false;
}

/* nginx clears the environment of the binary that it upgrades to. One that sets LD_PRELOAD itself knows what it does. */
size_t succession_lacks(char *const environment[])
{
	size_t lacks = 0;
	bool any = false;

	for (size_t i = 0; i < MAX_LISTENERS; i++)
		any = any || goes_along(&listeners[i]);
	if (!any || !environment || !settings_assignments[0] || has_variable(environment, "LD_PRELOAD="))
		return 0;
	for (size_t i = 0; i < MAX_SETTINGS_VARIABLES; i++)
		lacks += settings_assignments[i] && !has_variable(environment, settings_assignments[i]);
	return lacks;
}

void succession_extend(char *extended[], char *const environment[])
{
	char *const *variable = environment;

	while (*variable)
		*extended++ = *variable++;
	for (size_t i = 0; i < MAX_SETTINGS_VARIABLES; i++)
		if (settings_assignments[i] && !has_variable(environment, settings_assignments[i]))
			*extended++ = settings_assignments[i];
	*extended = NULL;
}

/* In the program that a process becomes in place: not in a child that is about to be another program. */
static bool stays_here(const struct listener *l)
{
	return goes_along(l) && l->cloned && l->creator == getpid();
}

static void close_on_exec(int fd, bool on)
{
	if (fd >= 0)
		real.fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

static bool leave_to_successor(struct listener *l, bool leave)
{
	pid_t other = stays_here(l) ? process_of_an_adopter(l) : 0;

	if (!stays_here(l))
		return false;
	if (other) { /* the new program gets the clones from there */
		if (leave)
			mark_with(l, other);
		return false;
	}
	if (leave)
		succession_unattended(l);
	if (leave && !atomic_load(&l->shared->unattended))
		return false;
	for_each_clone(cpu, l)
		if (clone_listens(l, cpu))
			close_on_exec(clone_of(l, cpu), !leave);
	if (leave)
		mark(l);
	return true;
}

/*
 * What waits in a clone shall not be reset when this process becomes another program and no worker has the clone. So
 * the clones stay open, and the filter sends what comes from now on to the application's listener, should the new
 * program run without the library.
 */
void succession_executes(bool begins)
{
	bool any = false;

	if (!page_is_open() || !tables_are_ours())
		return;
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		any = (listeners[i].generation && leave_to_successor(&listeners[i], begins)) || any;
	if (any)
		page_goes_along(begins);
}
