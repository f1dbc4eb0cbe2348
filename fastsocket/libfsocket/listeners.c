// SPDX-License-Identifier: MIT
/*
 * The application's TCP listeners: those it made, those it inherited by exec (socket activation, binary upgrade), those
 * it received over a Unix socket, and the duplicates of all of them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fsocket.h"

/* Whoever passes listeners by exec puts them among the first descriptors (sd_listen_fds(3) starts at 3). */
#define INHERITED_END 256

struct listener listeners[MAX_LISTENERS];
_Atomic(struct listener *) listener_by_fd[MAX_FDS];

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t next_generation = 1;
static pid_t table_owner;
/* The kernel clears this in a child that has a copy of our memory, and not in one that borrows it: madvise(2). */
static atomic_int never_a_copy = 1;
static atomic_int *no_copy = &never_a_copy;

__thread bool has_own_table __attribute__((tls_model("initial-exec")));
atomic_bool is_inert;

/* ---- the lock, and fork() ------------------------------------------------------------------------------------- */

/*
 * ThreadSanitizer ignores the mutex within what it takes for a blocking call, such as epoll_wait(): BlockingCall in
 * LLVM's tsan_interceptors_posix.cpp. So it is told.
 */
#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#else
#define __tsan_acquire(address) ((void)(address))
#define __tsan_release(address) ((void)(address))
#endif

void lock_tables(struct held *held)
{
	sigset_t all;

	held->saved_errno = errno;
	sigfillset(&all);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &held->cancel_state);
	pthread_sigmask(SIG_SETMASK, &all, &held->signals);
	pthread_mutex_lock(&table_lock);
	__tsan_acquire(&table_lock);
}

void unlock_tables(const struct held *held)
{
	__tsan_release(&table_lock);
	pthread_mutex_unlock(&table_lock);
	pthread_sigmask(SIG_SETMASK, &held->signals, NULL);
	pthread_setcancelstate(held->cancel_state, NULL);
	errno = held->saved_errno;
}

/* Epolls are the parent's, too, and what the library puts there is the parent's to change. */
static void forget_threads_of(struct listener *l)
{
	for (size_t i = 0; i < MAX_WATCHES; i++) {
		l->watch[i].thread = 0;
		l->watch[i].cpu = -1;
		l->watch[i].inherited = true;
	}
	for_each_clone(cpu, l)
		atomic_store(&l->clone[cpu].neighbour_epfd, -1);
	atomic_store(&l->neighbours, 0);
}

static void forget_parent(void)
{
	table_owner = getpid();
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation)
			forget_threads_of(&listeners[i]);
	adoptions_forget();
	fast_epoll_forget_threads();
	flow_deliver_after_fork();
}

/* A child that was made without fork(), and so without the handlers below, has one thread and nobody holds the lock. */
void notice_copy(void)
{
	if (likely(atomic_load_explicit(no_copy, memory_order_relaxed)))
		return;
	atomic_store(no_copy, 1);
	table_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	affinity_forget();
	forget_parent();
}

bool tables_are_ours(void)
{
	notice_copy();
	return !has_own_table && getpid() == table_owner;
}

/* The forking thread's signals stay blocked from before_fork() to after_fork(). */
static struct held held_over_fork;
static bool lifted_over_fork;

static void before_fork(void)
{
	struct held held;

	notice_copy();
	if (settings.fast_epoll)
		fast_epoll_before_fork();
	lock_tables(&held);
	held_over_fork = held;
	lifted_over_fork = affinity_lift();
}

static void after_fork(void)
{
	struct held held = held_over_fork;

	affinity_put_back(lifted_over_fork);
	unlock_tables(&held);
}

/* What the parent's threads watch is theirs to look after: the child chooses CPUs of its own. */
static void after_fork_in_child(void)
{
	lifted_over_fork = false;
	affinity_forget();
	atomic_store(no_copy, 1);
	forget_parent();
	after_fork();
}

/* ---- knowing a listener --------------------------------------------------------------------------------------- */

static bool is_tcp_listener(int fd)
{
	int domain;

	if (!get_int(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
		return false;
	domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, -1);
	return (domain == AF_INET || domain == AF_INET6) && get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

static int backlog_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	return real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) || !info.tcpi_sacked
		       ? SOMAXCONN
		       : (int)info.tcpi_sacked; /* of a listener this is its backlog: tcp_get_info() */
}

static struct listener *free_entry(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (!listeners[i].generation)
			return &listeners[i];
	return NULL;
}

static struct listener *with_cookie(uint64_t cookie)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && listeners[i].cookie == cookie)
			return &listeners[i];
	return NULL;
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	return memcmp(a, b, sizeof(*a)) == 0; /* both zeroed before the kernel wrote its part */
}

/* Another listener that the application opened on the same address: they share the load as the application wants. */
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

static bool blocks(int fd)
{
	int flags = real.fcntl(fd, F_GETFL);

	return flags < 0 || !(flags & O_NONBLOCK);
}

/* Signals of O_ASYNC tell of the one listener alone (fcntl(2)). */
void listeners_flags_changed(int fd)
{
	struct listener *l = find_listener(fd);

	if (likely(!l))
		return;
	l->blocks = blocks(fd);
	l->signals = real.fcntl(fd, F_GETFL) & O_ASYNC;
}

/* A connection has a CPU, which stays when it is disconnected and listens; of other programs' listeners we cannot tell. */
static void describe(struct listener *l, int fd, int backlog, enum origin origin)
{
	socklen_t size = sizeof(l->address);

	l->fd = fd;
	l->descriptors = 0;
	l->backlog = backlog;
	l->creator = getpid();
	l->origin = origin;
	l->cloned = false;
	l->sharded = false;
	l->cpus_end = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		atomic_store(&l->clone[cpu].fd, -1);
	CPU_ZERO(&l->cpus);
	atomic_store(&l->watched, 0);
	atomic_store(&l->neighbours, 0);
	memset(l->watch, 0, sizeof(l->watch));
	l->cookie = cookie_of(fd);
	l->blocks = blocks(fd);
	l->signals = real.fcntl(fd, F_GETFL) & O_ASYNC;
	l->covered = false;
	l->why_not = NULL;
	l->guarded =
		descriptor(fd) == GUARDED ||
		(origin != LISTENED && get_int(fd, SOL_SOCKET, SO_INCOMING_CPU, -1) >= 0 && !succession_is_marked(fd));
	l->own_reuseport = get_int(fd, SOL_SOCKET, SO_REUSEPORT, 0) && !succession_is_marked(fd);
	l->own_incoming_cpu = succession_is_marked(fd) ? -1 : get_int(fd, SOL_SOCKET, SO_INCOMING_CPU, -1);
	memset(&l->address, 0, sizeof(l->address));
	getsockname(fd, (struct sockaddr *)&l->address, &size);
}

static void say_why_not(struct listener *l, const char *problem)
{
	l->why_not = problem;
	snprintf(l->shared->why_not, sizeof(l->shared->why_not), "%s", problem);
}

static bool join_shards(struct listener *l)
{
	struct listener *leader = l->own_reuseport && l->origin == LISTENED ? shard_of(l) : NULL;

	if (!leader || !settings.listen_table || !port_is_wanted(l))
		return false;
	if (leader->cloned)
		adopters_leave(leader);
	page_add_shard(leader->shared, leader->cookie);
	page_add_shard(leader->shared, l->cookie);
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

/* NULL, or why it will not be accelerated. */
static const char *prepare(struct listener *l)
{
	const char *problem;

	if (succession_is_marked(l->fd) && settings.listen_table && port_is_wanted(l) && succession_take_over(l))
		return NULL;
	if (!page_open())
		return "no memory to share with the workers";
	if (join_shards(l))
		return NULL;
	l->shared = page_place();
	if (!l->shared)
		return TEXT_TOO_MANY;
	l->shared->cookie = l->cookie;
	l->shared->address = l->address;
	if (!settings.listen_table)
		problem = "FSOCKET_LISTEN_TABLE=off";
	else if (!port_is_wanted(l))
		problem = "FSOCKET_ONLY names other ports";
	else if (!(problem = clones_make(l)))
		problem = "no worker waits for it with epoll";
	say_why_not(l, problem);
	return l->cloned || !settings.listen_table || !port_is_wanted(l) ? NULL : problem;
}

static void add_descriptor(struct listener *l, int fd)
{
	l->descriptors++;
	if (descriptor(fd) == GUARDED)
		l->guarded = true;
	atomic_store_explicit(&listener_by_fd[fd], l, memory_order_release);
	set_descriptor(fd, LISTENER);
}

static void close_page_unless_needed(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && listeners[i].cloned)
			return;
	page_close();
}

/* Returns NULL, or why connections of this listener will not go to their own CPUs; strict applications want to know. */
static const char *know(int fd, int backlog, enum origin origin)
{
	struct listener *l = free_entry();
	const char *problem;
	int lock;

	if (!l)
		return TEXT_TOO_MANY;
	l->shared = NULL;
	lock = succession_lock(cookie_of(fd));
	describe(l, fd, backlog, origin);
	problem = prepare(l);
	succession_unlock(lock);
	if (!l->shared)
		return problem;
	l->generation = next_generation++;
	add_descriptor(l, fd);
	close_page_unless_needed();
	return problem;
}

/* Once for each reason: a server may have thousands of listeners. */
static void complain(const char *problem, int error)
{
	static _Atomic(const char *) told[16];

	for (size_t i = 0; i < COUNT(told); i++) {
		const char *present = NULL;

		if (atomic_compare_exchange_strong(&told[i], &present, problem)) {
			fsocket_log("%s%s%s%s; the application runs without Fastsocket on this listener", problem,
			            error ? " (" : "", error ? strerror(error) : "", error ? ")" : "");
			return;
		}
		if (present == problem)
			return;
	}
}

/* ---- what happens to it --------------------------------------------------------------------------------------- */

bool listeners_listen(int fd, int backlog)
{
	const char *problem = NULL;
	struct listener *l;
	struct held held;
	int error;

	if ((unsigned int)fd >= MAX_FDS || !is_tcp_listener(fd) || seccomp_was_installed() || !tables_are_ours())
		return true;
	lock_tables(&held);
	l = find_listener(fd);
	errno = 0;
	if (l)
		clones_listen_again(l, backlog);
	else
		problem = know(fd, backlog, LISTENED);
	error = errno;
	unlock_tables(&held);
	if (problem)
		complain(problem, error);
	return !problem || !settings.strict;
}

struct listener *listeners_discover(int fd, enum origin origin)
{
	int saved_errno = errno;
	struct listener *l;
	struct held held;

	if ((unsigned int)fd >= MAX_FDS || seccomp_was_installed() || !tables_are_ours())
		return NULL;
	if (!is_tcp_listener(fd)) {
		set_descriptor(fd, PLAIN);
		errno = saved_errno;
		return NULL;
	}
	lock_tables(&held);
	l = with_cookie(cookie_of(fd));
	if (l)
		add_descriptor(l, fd);
	else
		know(fd, backlog_of(fd), origin);
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

/* The place in the page is the listener's for as long as any process of the server may use it. */
static void let_go(struct listener *l)
{
	int32_t creator = getpid();

	l->generation = 0;
	if (!is_shared_with_another(l)) {
		atomic_store(&l->shared->let_go_ms, now_ms());
		atomic_compare_exchange_strong(&l->shared->creator, &creator, 0);
	}
	close_page_unless_needed();
}

/* Of several shards that share a place, the one that is closed gives up what its own epolls watched. */
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
	atomic_store(&listener_by_fd[fd], NULL);
	if (!l)
		return;
	if (--l->descriptors > 0) {
		if (l->fd == fd)
			name_by_another(l);
		return;
	}
	if (l->sharded && is_shared_with_another(l)) {
		shard_closes(l);
	} else {
		page_no_thread_waits(l->shared);
		adopters_leave(l);
	}
	let_go(l);
}

static void note_copies(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || madvise(map, size, MADV_WIPEONFORK))
		return;
	atomic_store((atomic_int *)map, 1);
	no_copy = map;
}

void listeners_start(void)
{
	table_owner = getpid();
	note_copies();
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
