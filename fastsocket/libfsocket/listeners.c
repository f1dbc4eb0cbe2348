// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "adopt.h"
#include "affinity.h"
#include "balance.h"
#include "bell.h"
#include "clock.h"
#include "clone.h"
#include "defer_accept.h"
#include "follow.h"
#include "listeners.h"
#include "log.h"
#include "mark.h"
#include "places.h"
#include "process.h"
#include "seats.h"
#include "settings.h"
#include "sockopt.h"
#include "take_over.h"
#include "watches.h"
#include "withdrawal.h"

/* Programs that pass listeners by exec put them among the first descriptors (sd_listen_fds(3) starts at 3). */
#define INHERITED_END 256

static uint32_t next_generation = 1;

/* ---- knowing a listener ---- */

static struct listener *free_entry(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (!listeners[i].generation)
			return &listeners[i];
	return NULL;
}

/* Finds a listener by its cookie. Cookie 0 could not be read, and is no listener's. */
static struct listener *with_cookie(uint64_t cookie)
{
	for (size_t i = 0; cookie && i < MAX_LISTENERS; i++)
		if (listeners[i].generation && listeners[i].cookie == cookie)
			return &listeners[i];
	return NULL;
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	return memcmp(a, b, sizeof(*a)) == 0; /* both were zeroed before the kernel wrote its part */
}

/*
 * Finds another listener that the application opened on the same address. If there is one, the application shares the
 * load among them itself.
 */
static struct listener *shard_of(const struct listener *l)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++) {
		struct listener *other = &listeners[i];

		if (other != l && other->generation && other->own_reuseport && other->creator == l->creator &&
		    other->origin == LISTENED && same_address(&other->shared->address, &l->address))
			return other;
	}
	return NULL;
}

static bool port_is_wanted(const struct listener *l)
{
	/* sin_port and sin6_port are at the same place. */
	uint16_t port = ntohs(((const struct sockaddr_in *)&l->address)->sin_port);

	for (size_t i = 0; i < settings.only_ports; i++)
		if (settings.only_port[i] == port)
			return true;
	return settings.only_ports == 0;
}

/*
 * Describes a new listener. SO_INCOMING_CPU may be left from a connection, if the socket was connected and disconnected
 * before it listened. On a listener of another program the number may be that program's own choice: such a listener is
 * guarded, and gets no clones.
 */
static void describe(struct listener *l, int fd, enum origin origin)
{
	socklen_t size = sizeof(l->address);

	l->fd = fd;
	l->descriptors = 0;
	l->creator = getpid();
	l->origin = origin;
	l->cloned = false;
	l->sharded = false;
	l->program = l->clones_map = (struct loaded){ 0 };
	l->cpus_end = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		atomic_store(&l->clone[cpu].fd, -1);
	CPU_ZERO(&l->cpus);
	atomic_store(&l->watched, 0);
	atomic_store(&l->neighbours, 0);
	memset(l->watch, 0, sizeof(l->watch));
	l->cookie = cookie_of(fd);
	note_flags(l, fd);
	l->sends_otherwise = sends_otherwise(fd);
	l->covered = false;
	l->why_not = NO_REASON;
	l->guarded = descriptor(fd) == GUARDED ||
	             (origin != LISTENED && get_int(fd, SOL_SOCKET, SO_INCOMING_CPU, -1) >= 0 && !is_marked(fd));
	l->own_reuseport = get_int(fd, SOL_SOCKET, SO_REUSEPORT, 0) && !is_marked(fd);
	l->own_incoming_cpu = is_marked(fd) ? -1 : get_int(fd, SOL_SOCKET, SO_INCOMING_CPU, -1);
	memset(&l->address, 0, sizeof(l->address));
	getsockname(fd, (struct sockaddr *)&l->address, &size);
	l->is_wanted = port_is_wanted(l);
	defer_accept_of(l);
}

static bool join_shards(struct listener *l)
{
	struct listener *leader = l->own_reuseport && l->origin == LISTENED ? shard_of(l) : NULL;

	if (!leader)
		return false;
	if (leader->cloned && any_listens(leader)) { /* closing a clone would reset the connections that wait in it */
		refuse(leader, NEIGHBOUR);
		return false;
	}
	if (leader->cloned)
		adopters_leave(leader);
	shared_add_shard(leader->shared, leader->cookie);
	shared_add_shard(leader->shared, l->cookie);
	leader->guarded = l->guarded = leader->guarded || l->guarded;
	leader->sharded = true;
	l->sharded = true;
	l->shared = leader->shared;
	atomic_store(&l->shared->creator, getpid());
	affinity_own(&l->cpus);
	leader->cpus = l->cpus;
	leader->cpus_end = CPU_SETSIZE;
	l->cpus_end = CPU_SETSIZE;
	return true;
}

/* Why the settings do not want this listener to be accelerated, or NO_REASON. */
static enum reason why_unwanted(const struct listener *l)
{
	if (!settings.listen_table)
		return LISTEN_TABLE_IS_OFF;
	return l->is_wanted ? NO_REASON : OTHER_PORTS_ONLY;
}

static enum reason take_place(struct listener *l)
{
	l->shared = place_take();
	if (!l->shared)
		return TOO_MANY_LISTENERS;
	l->shared->cookie = l->cookie;
	l->shared->address = l->address;
	return NO_REASON;
}

/* Returns NO_REASON, or why the listener will not be accelerated. Until a worker adopts a clone, none is in use. */
static enum reason prepare(struct listener *l)
{
	enum reason unwanted = why_unwanted(l), problem;

	if (!unwanted && is_marked(l->fd) && take_over(l))
		return NO_REASON;
	if (!shared_open())
		return NO_SHARED_MEMORY;
	if (!unwanted && join_shards(l))
		return NO_REASON;
	problem = take_place(l);
	if (problem)
		return problem;
	problem = unwanted ? unwanted : clones_make(l);
	l->why_not = problem ? problem : NO_WORKER_WAITS;
	if (l->cloned)
		balance_load(l);
	snprintf(l->shared->why_not, sizeof(l->shared->why_not), "%s", reason_text(l->why_not));
	return problem;
}

static void add_descriptor(struct listener *l, int fd)
{
	l->descriptors++;
	if (descriptor(fd) == GUARDED)
		l->guarded = true;
	atomic_store_explicit(&listener_by_fd[fd], l, memory_order_release);
	set_descriptor(fd, LISTENER);
}

static void close_memory_unless_needed(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && listeners[i].cloned)
			return;
	pulses_close();
	shared_close();
}

/* Returns NO_REASON, or why connections of this listener will not go to their own CPUs. */
static enum reason know(int fd, enum origin origin)
{
	struct listener *l = free_entry();
	enum reason problem;

	if (!l)
		return TOO_MANY_LISTENERS;
	l->shared = NULL;
	lock_listener(fd);
	describe(l, fd, origin);
	problem = prepare(l);
	unlock_listener(fd);
	if (!l->shared)
		return problem;
	l->generation = next_generation++;
	add_descriptor(l, fd);
	close_memory_unless_needed();
	return problem;
}

/* Logs each reason once, because a server may have thousands of listeners. */
static void complain(enum reason problem, int error)
{
	static atomic_bool told[REASONS_END];

	if (!atomic_exchange(&told[problem], true))
		fsocket_log("%s%s%s%s; the application runs without Fastsocket on this listener", reason_text(problem),
		            error ? " (" : "", error ? strerror(error) : "", error ? ")" : "");
}

/* ---- what happens to it ---- */

/*
 * Finds the listener of a descriptor. A descriptor that was duplicated before its socket listened belongs to a listener
 * that is known already: Envoy has such descriptors.
 */
static struct listener *known_listener(int fd)
{
	struct listener *l = find_listener(fd);

	if (l)
		return l;
	l = with_cookie(cookie_of(fd));
	if (l)
		add_descriptor(l, fd);
	return l;
}

bool listeners_listen(int fd, int backlog)
{
	enum reason problem = NO_REASON;
	struct listener *l;
	struct held held;
	int error;

	if ((unsigned int)fd >= MAX_FDS || !is_tcp_listener(fd) || seccomp_was_installed() || !tables_are_ours())
		return true;
	lock_tables(&held);
	l = known_listener(fd);
	errno = 0;
	if (l)
		clones_listen_again(l, backlog);
	else
		problem = know(fd, LISTENED);
	error = errno;
	unlock_tables(&held);
	if (!problem || is_wanted_so(problem))
		return true;
	complain(problem, error);
	return !settings.strict;
}

struct listener *listeners_discover(int fd, enum origin origin)
{
	int saved_errno = errno;
	struct held held;

	if ((unsigned int)fd >= MAX_FDS || seccomp_was_installed() || !tables_are_ours())
		return NULL;
	if (!is_tcp_listener(fd)) {
		set_descriptor(fd, PLAIN);
		errno = saved_errno;
		return NULL;
	}
	lock_tables(&held);
	if (!known_listener(fd))
		know(fd, origin);
	unlock_tables(&held);
	errno = saved_errno;
	return find_listener(fd);
}

void listeners_inherit(void)
{
	for (int fd = 0; fd < INHERITED_END; fd++)
		if (get_int(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
			listeners_discover(fd, INHERITED_BY_EXEC);
}

void listeners_duplicated(int from, int to)
{
	struct listener *l;
	struct held held;

	if ((unsigned int)to >= MAX_FDS || !tables_are_ours())
		return;
	lock_tables(&held);
	l = find_listener(from);
	if (l)
		add_descriptor(l, to);
	unlock_tables(&held);
}

static void name_by_another(struct listener *l)
{
	for (int fd = 0; fd < MAX_FDS; fd++)
		if (find_listener(fd) == l) {
			l->fd = fd;
			return;
		}
}

static bool is_shared_with_another(const struct listener *l)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (&listeners[i] != l && listeners[i].generation && listeners[i].shared == l->shared)
			return true;
	return false;
}

/* Forgets a listener. Its place in the shared memory stays for as long as any process of the server may use it. */
static void let_go(struct listener *l)
{
	int32_t creator = getpid();

	l->generation = 0;
	if (!is_shared_with_another(l)) {
		atomic_store(&l->shared->let_go_ms, now_ms());
		atomic_compare_exchange_strong(&l->shared->creator, &creator, 0);
	}
	close_memory_unless_needed();
}

/* Several shards share a place in the shared memory. The one that is closed gives up what its own epolls watched. */
static void shard_closes(struct listener *l)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].used)
			give_up(l, &l->watch[i]);
}

void listeners_close(int fd)
{
	struct listener *l = find_listener(fd);

	set_descriptor(fd, UNKNOWN);
	if (!l)
		return;
	atomic_store(&listener_by_fd[fd], NULL);
	if (--l->descriptors > 0) {
		if (l->fd == fd)
			name_by_another(l);
		return;
	}
	watch_rests_no_longer();
	bells_take_down(l);
	if (l->sharded && is_shared_with_another(l)) {
		shard_closes(l);
	} else {
		no_thread_waits(l->shared);
		adopters_leave(l);
	}
	let_go(l);
	unpin_unless_adopting();
}
