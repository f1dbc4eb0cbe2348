// SPDX-License-Identifier: MIT
/*
 * Local Listen Table: a listener per CPU behind the one that the application made.
 *
 * listen()      clones the listener for each CPU we may run on: same address, SO_REUSEPORT, SO_INCOMING_CPU. A clone
 *               is bound by the process that may bind there, but does not listen yet and so receives nothing.
 * epoll_ctl()   a worker that starts to watch the listener adopts the clone of its CPU: listens on it, watches it too.
 *               From then on the kernel gives it the connections whose SYN that CPU handled.
 * accept()      looks at the adopted clone, then at the application's listener, which stays as the global fallback
 *               for a SYN whose CPU has no clone listening.
 *
 * The application's listener gets SO_REUSEPORT only after its own bind() and listen() have answered, so that nothing
 * the application sees of them changes. Where the application opened a SO_REUSEPORT listener per worker itself, these
 * are the local listeners: the worker's CPU is written on the one it watches, and there are no clones.
 * Sources: socket(7); Linux b261eda84ec1 (SO_INCOMING_CPU in reuseport groups).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsocket.h"

/* The global listener has its turn after this many accepts, so that a busy local one cannot starve it. */
#define ACCEPTS_PER_GLOBAL_TURN 32
/* A thread that watches listeners looks after them this often. */
#define TEND_EVERY_MS 250

struct adoption {
	uint32_t generation;
	int cpu;
	unsigned int until_global_turn;
};

THREAD_LOCAL struct adoption adoptions[MAX_LISTENERS];
THREAD_LOCAL bool tends;
THREAD_LOCAL uint64_t tend_again_ms;
THREAD_LOCAL uint32_t changes_seen;

/* ---- clones --------------------------------------------------------------------------------------------------- */

static void note_watchers(struct listener *l, int cpu, int difference)
{
	atomic_fetch_add(&l->clone[cpu].watchers, difference);
	atomic_fetch_add(&l->watched, difference);
}

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

static void forget_clone(struct listener *l, int cpu, int fd)
{
	struct clone *clone = &l->clone[cpu];

	note_watchers(l, cpu, -atomic_load(&clone->watchers));
	if (atomic_exchange(&clone->neighbour_epfd, -1) >= 0)
		atomic_fetch_sub(&l->neighbours, 1);
	atomic_store(&clone->fd, -1);
	set_descriptor(fd, UNKNOWN);
	atomic_store(&listener_by_fd[fd], NULL);
}

static void close_clones(struct listener *l)
{
	for_each_clone(cpu, l) {
		int fd = atomic_load(&l->clone[cpu].fd);

		forget_clone(l, cpu, fd);
		if (is_ours(&l->clone[cpu], fd))
			real.close(fd);
	}
	CPU_ZERO(&l->cpus);
	l->cpus_end = 0;
}

bool llt_add_clone(struct listener *l, int cpu, int fd)
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
	atomic_store(&clone->fd, fd);
	atomic_store(&listener_by_fd[fd], l);
	set_descriptor(fd, CLONE);
	CPU_SET(cpu, &l->cpus);
	if (l->cpus_end <= cpu)
		l->cpus_end = cpu + 1;
	return true;
}

static bool clone_for_each_cpu(struct listener *l, const cpu_set_t *cpus)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, cpus) && !llt_add_clone(l, cpu, bind_clone(l->fd, cpu)))
			return false;
	return true;
}

const char *llt_clone(struct listener *l)
{
	cpu_set_t cpus;
	int saved_errno;

	errno = 0;
	if (!kernel_honours_incoming_cpu())
		return "this kernel ignores SO_INCOMING_CPU among SO_REUSEPORT listeners (Linux 6.2 or a backport has it)";
	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		return "the CPU affinity cannot be read";
	if (!set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 1))
		return "SO_REUSEPORT is refused";
	if (clone_for_each_cpu(l, &cpus)) {
		l->cloned = true;
		succession_mark(l);
		return NULL;
	}
	saved_errno = errno;
	close_clones(l);
	set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, l->own_reuseport);
	errno = saved_errno;
	return "the listener cannot be cloned";
}

/* A new backlog, or the end of a pause that shutdown() began: for the clones that somebody accepts from, too. */
void llt_listen_again(struct listener *l, int backlog)
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

/* ---- which CPU ------------------------------------------------------------------------------------------------ */

static struct adoption *adoption_of(const struct listener *l)
{
	struct adoption *mine = &adoptions[l - listeners];

	return mine->generation == l->generation ? mine : NULL;
}

/* A worker that nobody pinned: a CPU that nobody serves, else the next in turn. */
static int next_cpu(struct listener *l, const cpu_set_t *allowed)
{
	cpu_set_t candidates;
	int turn, cpu;

	CPU_AND(&candidates, allowed, &l->cpus);
	if (!CPU_COUNT(&candidates))
		return -1;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &candidates) && claim(&l->shared->seat[cpu]))
			return cpu;
	turn = (int)(atomic_fetch_add(&l->shared->tickets, 1) % (uint32_t)CPU_COUNT(&candidates));
	for (cpu = 0; turn > 0 || !CPU_ISSET(cpu, &candidates); cpu++)
		turn -= CPU_ISSET(cpu, &candidates) ? 1 : 0;
	return cpu;
}

static int pinned_cpu(const cpu_set_t *allowed)
{
	for (int cpu = 0; CPU_COUNT(allowed) == 1 && cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed))
			return cpu;
	return -1;
}

static bool others_serve(const struct listener *l)
{
	if (anybody_else_at(&l->shared->waiting))
		return true;
	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		if (anybody_else_at(&l->shared->seat[cpu]))
			return true;
	return false;
}

/* Forked after listen(), or with others beside it: threads, or processes that have the listener from elsewhere. */
static bool is_one_of_several(const struct listener *l)
{
	return getpid() != l->creator || others_serve(l);
}

/*
 * The CPU whose connections the calling thread is to serve, or -1. Locality needs a thread that stays where it is: one
 * that is pinned already, or one of several workers, which we pin as the original Fastsocket did. A server that is a
 * single unpinned thread keeps its freedom, and its one listener.
 */
static int choose_cpu(struct listener *l)
{
	cpu_set_t allowed, one;
	int cpu;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -1;
	cpu = pinned_cpu(&allowed);
	if (cpu >= 0 || !settings.may_pin || !is_one_of_several(l))
		return cpu;
	cpu = next_cpu(l, &allowed);
	if (cpu < 0)
		return -1;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(0, sizeof(one), &one) ? -1 : cpu;
}

/* ---- epoll_ctl(): adopt --------------------------------------------------------------------------------------- */

bool start_watching(struct listener *l, int cpu, const struct watch *watch)
{
	struct epoll_event event = watch->event;

	if (real.epoll_ctl(watch->epfd, EPOLL_CTL_ADD, atomic_load(&l->clone[cpu].fd), &event))
		return errno == EEXIST;
	note_watchers(l, cpu, 1);
	return true;
}

static void is_no_neighbour(struct listener *l, int cpu, int epfd)
{
	if (atomic_compare_exchange_strong(&l->clone[cpu].neighbour_epfd, &epfd, -1))
		atomic_fetch_sub(&l->neighbours, 1);
}

void stop_watching(struct listener *l, int cpu, int epfd)
{
	struct epoll_event unused = { 0 };

	if (!real.epoll_ctl(epfd, EPOLL_CTL_DEL, atomic_load(&l->clone[cpu].fd), &unused))
		note_watchers(l, cpu, -1);
	is_no_neighbour(l, cpu, epfd);
}

/* Leave the reuseport group again. What waits there is reset: only for a clone that nobody else can accept from. */
void stop_listening(struct listener *l, int cpu)
{
	int fd = clone_of(l, cpu);

	atomic_store(&l->shared->seat[cpu].listening, 0);
	if (fd >= 0)
		real.shutdown(fd, SHUT_RD);
}

/* A worker that takes its listener out of the epoll and puts it back (nginx does, often) finds all as it was. */
static bool is_listening(const struct listener *l, int cpu)
{
	return atomic_load(&l->shared->seat[cpu].listening) && get_int(clone_of(l, cpu), SOL_SOCKET, SO_ACCEPTCONN, 0);
}

static const char *start_listening(struct listener *l, int cpu, const struct watch *watch)
{
	struct seat *seat = &l->shared->seat[cpu];
	int fd = clone_of(l, cpu);

	if (!is_listening(l, cpu)) {
		if (has_filter(l->fd))
			return "it has a socket filter";
		if (fd < 0 || !copy_rest(l->fd, fd))
			return "its options cannot be copied";
		succession_waits(l);
		if (real.listen(fd, l->backlog))
			return "a clone of it cannot listen";
	}
	enrol(seat);
	atomic_store(&seat->tended_ms, now_ms());
	atomic_store(&seat->listening, 1);
	succession_mark(l);
	succession_attended(l);
	if (start_watching(l, cpu, watch)) {
		is_no_neighbour(l, cpu, watch->epfd); /* what it may have been until now */
		return NULL;
	}
	atomic_store(&seat->tended_ms, 0);
	return "a clone of it cannot be watched";
}

static const char *mark_shard(struct listener *l, int cpu)
{
	if (!set_int(l->fd, SOL_SOCKET, SO_INCOMING_CPU, cpu))
		return "SO_INCOMING_CPU is refused";
	enrol(&l->shared->seat[cpu]);
	atomic_store(&l->shared->seat[cpu].tended_ms, now_ms());
	atomic_store(&l->shared->seat[cpu].listening, 1);
	return NULL;
}

static const char *obstacle(const struct listener *l, const struct watch *watch)
{
	if (!l->cloned && !l->sharded)
		return l->shared->why_not;
	if (watch->event.events & EPOLLONESHOT)
		return "it is watched with EPOLLONESHOT";
	if (l->blocks) /* accepting tries the clone first, and then has to see that the listener has nothing either */
		return "accept() on it blocks";
	if (succession_withdrawn(l))
		return "it was handed over to another program";
	return NULL;
}

static const char *adopt(struct listener *l, struct watch *watch)
{
	struct adoption *again = adoption_of(l);
	const char *problem = obstacle(l, watch);
	int cpu;

	if (problem)
		return problem;
	cpu = again ? again->cpu : choose_cpu(l);
	if (cpu < 0)
		return "its worker is not pinned to a CPU, and is the only one";
	if (!CPU_ISSET(cpu, &l->cpus) && (l->sharded || !llt_add_clone(l, cpu, bind_clone(l->fd, cpu))))
		return "its worker runs on a CPU that was not the server's when it listened";
	problem = l->sharded ? mark_shard(l, cpu) : start_listening(l, cpu, watch);
	if (problem) {
		leave(&l->shared->seat[cpu]);
		return problem;
	}
	watch->cpu = cpu;
	leave(&l->shared->waiting);
	if (!again)
		count(&counters_of(cpu)->adopted);
	adoptions[l - listeners] = (struct adoption){ l->generation, cpu, ACCEPTS_PER_GLOBAL_TURN };
	return NULL;
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
	else if (problem != why_not && !anybody_adopts(l))
		snprintf(why_not, sizeof(l->shared->why_not), "%s", problem);
	if (problem && settings.verbose)
		fsocket_log("a worker does not get a listener of its own: %s", problem);
}

static struct watch *watch_in(struct listener *l, int epfd)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (l->watch[i].thread && l->watch[i].epfd == epfd)
			return &l->watch[i];
	return NULL;
}

static struct watch *free_watch(struct listener *l)
{
	for (size_t i = 0; i < MAX_WATCHES; i++)
		if (!l->watch[i].thread)
			return &l->watch[i];
	return NULL;
}

static void watch_added(struct listener *l, int epfd, const struct epoll_event *event)
{
	struct watch *watch = watch_in(l, epfd);
	const char *problem;

	if (!watch)
		watch = free_watch(l);
	if (watch)
		*watch = (struct watch){ .thread = myself(), .epfd = epfd, .cpu = -1, .event = *event };
	problem = watch ? adopt(l, watch) : "more than 256 epolls of one process watch it";
	tell(l, problem);
	if (problem) {
		count(&counters_here()->fallen_back);
		enrol(&l->shared->waiting);
	}
	if (anybody_else_at(&l->shared->waiting))
		page_arrive();
	tends = true;
	if (watch && l->cloned && !l->blocks)
		neighbours_tend(l, watch, now_ms());
}

static void watch_modified(struct listener *l, int epfd, const struct epoll_event *event)
{
	struct watch *watch = watch_in(l, epfd);

	if (watch)
		watch->event = *event;
	for_each_clone(cpu, l) {
		struct epoll_event copy = *event;

		if (l->cloned && atomic_load(&l->clone[cpu].watchers))
			real.epoll_ctl(epfd, EPOLL_CTL_MOD, atomic_load(&l->clone[cpu].fd), &copy);
	}
}

/*
 * The listener itself stays open, and its clone listening: the neighbours see that nobody waits for it. Only nginx with
 * EPOLLEXCLUSIVE puts it back at once, every 16 accepts, and must not lose what arrives meanwhile to another CPU.
 */
static void watch_deleted(struct listener *l, int epfd)
{
	struct watch *watch = watch_in(l, epfd);

	if (watch && watch->cpu >= 0 && !(watch->event.events & EPOLLEXCLUSIVE))
		atomic_store(&l->shared->seat[watch->cpu].tended_ms, 0);
	if (watch)
		watch->thread = 0;
	leave(&l->shared->waiting);
	for_each_clone(cpu, l)
		if (l->cloned && atomic_load(&l->clone[cpu].watchers))
			stop_watching(l, cpu, epfd);
}

void llt_epoll_ctl(struct listener *l, int epfd, int op, const struct epoll_event *event)
{
	struct held held;

	lock_tables(&held);
	if (op == EPOLL_CTL_ADD)
		watch_added(l, epfd, event);
	else if (op == EPOLL_CTL_MOD)
		watch_modified(l, epfd, event);
	else
		watch_deleted(l, epfd);
	unlock_tables(&held);
}

/* ---- what the application sets on its listener ----------------------------------------------------------------- */

static bool is_ours_to_set(int level, int name)
{
	return level == SOL_SOCKET && (name == SO_REUSEPORT || name == SO_INCOMING_CPU ||
				       name == SO_ATTACH_REUSEPORT_CBPF || name == SO_ATTACH_REUSEPORT_EBPF ||
				       name == SO_DETACH_REUSEPORT_BPF);
}

void llt_setsockopt(struct listener *l, int level, int name, const void *value, socklen_t size)
{
	struct held held;

	lock_tables(&held);
	if (level == SOL_SOCKET && name == SO_REUSEPORT) {
		l->own_reuseport = get_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 0);
		if (l->cloned)
			set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 1);
	}
	for_each_clone(cpu, l)
		if (l->cloned && !is_ours_to_set(level, name) && atomic_load(&l->shared->seat[cpu].listening))
			real.setsockopt(atomic_load(&l->clone[cpu].fd), level, name, value, size);
	unlock_tables(&held);
}

/* ---- while it waits ------------------------------------------------------------------------------------------- */

/* The worker is pinned now, or elsewhere than it was. What it leaves behind is its neighbours' until somebody comes. */
static void reconsider(struct listener *l, struct watch *watch)
{
	int was = watch->cpu;
	cpu_set_t allowed;
	int pinned;

	if (obstacle(l, watch) || sched_getaffinity(0, sizeof(allowed), &allowed))
		return;
	pinned = pinned_cpu(&allowed);
	if (was >= 0 ? pinned < 0 || pinned == was : pinned < 0 && !(settings.may_pin && is_one_of_several(l)))
		return;
	if (was >= 0) {
		leave(&l->shared->seat[was]);
		atomic_store(&l->shared->seat[was].tended_ms, 0);
		if (l->cloned)
			stop_watching(l, was, watch->epfd);
		watch->cpu = -1;
		adoptions[l - listeners].generation = 0;
	}
	tell(l, adopt(l, watch));
}

/* Every clone is being emptied, or is closed: nothing of ours is to be tried first any more. */
static void give_up(struct listener *l, struct watch *watch)
{
	if (watch->cpu < 0 || atomic_load(&l->shared->seat[watch->cpu].listening))
		return;
	leave(&l->shared->seat[watch->cpu]);
	stop_watching(l, watch->cpu, watch->epfd);
	watch->cpu = -1;
	adoptions[l - listeners].generation = 0;
	tell(l, "it was handed over to another program");
}

static void tend(struct listener *l, struct watch *watch, uint64_t now)
{
	bool withdrawn = l->cloned && succession_tend(l, now);

	listeners_flags_changed(l->fd);
	if (withdrawn)
		give_up(l, watch);
	else
		reconsider(l, watch);
	if (watch->cpu >= 0)
		atomic_store(&l->shared->seat[watch->cpu].tended_ms, now);
	if (l->cloned)
		neighbours_tend(l, watch, now);
}

static void tend_all(uint64_t now)
{
	uint64_t me = myself();
	struct held held;

	lock_tables(&held);
	tends = false;
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		for (size_t j = 0; listeners[i].generation && j < MAX_WATCHES; j++)
			if (listeners[i].watch[j].thread == me) {
				tends = true;
				tend(&listeners[i], &listeners[i].watch[j], now);
			}
	unlock_tables(&held);
}

bool llt_tends(void)
{
	return tends;
}

int llt_tend(void)
{
	uint64_t now;

	if (!tends)
		return -1;
	now = now_ms();
	if (now >= tend_again_ms || changes_seen != page_changes()) {
		changes_seen = page_changes();
		tend_all(now);
		tend_again_ms = now + TEND_EVERY_MS;
	}
	return (int)(tend_again_ms - now);
}

void llt_forget_threads(void)
{
	memset(adoptions, 0, sizeof(adoptions));
	tends = false;
}

/* ---- accept() ------------------------------------------------------------------------------------------------- */

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
	int accepted = fd < 0 ? -1 : real.accept4(fd, addr, len, flags);

	if (accepted < 0) /* EINVAL, EBADF, ENOTSOCK: the clone is gone, which is ours to bear */
		*empty = fd < 0 || errno == EAGAIN || errno == EINVAL || errno == EBADF || errno == ENOTSOCK;
	return accepted;
}

static int accept_local(struct listener *l, int cpu, struct sockaddr *addr, socklen_t *len, int flags, bool *empty)
{
	int accepted = accept_clone(l, cpu, addr, len, flags, empty);

	if (accepted >= 0)
		count(&counters_of(cpu)->accepted_local);
	return accepted;
}

/* Of the clones: its neighbours' that it tends, or, without one of its own, all that it watches or that nobody does. */
static int accept_watched(struct listener *l, bool all, struct sockaddr *addr, socklen_t *len, int flags, bool *empty)
{
	uint64_t now = now_ms();
	int accepted = -1;

	*empty = true;
	for_each_clone(cpu, l) {
		bool neighbour = atomic_load(&l->clone[cpu].neighbour_epfd) >= 0;

		if (!(all && atomic_load(&l->clone[cpu].watchers) && !neighbour) &&
		    !((all || neighbour) && is_neglected(&l->shared->seat[cpu], now)))
			continue;
		accepted = accept_clone(l, cpu, addr, len, flags, empty);
		if (accepted >= 0)
			count(neighbour ? &counters_here()->accepted_neighbour : &counters_of(cpu)->accepted_local);
		if (accepted >= 0 || !*empty)
			break;
	}
	return accepted;
}

/* The application made its listener blocking after we had adopted: sleep until any of its queues has something. */
static bool wait_for_any(struct listener *l, int fd)
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
	return ready > 0;
}

static int accept_first(struct listener *l, struct adoption *mine, int fd, struct sockaddr *addr, socklen_t *len,
			int flags)
{
	bool empty = true;
	int accepted = -1;

	if (mine && --mine->until_global_turn == 0) {
		mine->until_global_turn = ACCEPTS_PER_GLOBAL_TURN;
		if (!l->blocks)
			accepted = accept_global(fd, addr, len, flags);
	}
	if (accepted < 0 && mine)
		accepted = accept_local(l, mine->cpu, addr, len, flags, &empty);
	if (accepted < 0 && empty && (mine ? atomic_load(&l->neighbours) : atomic_load(&l->watched) || page_departures()))
		accepted = accept_watched(l, !mine, addr, len, flags, &empty);
	if (accepted >= 0 || !empty)
		return accepted;
	if (!l->blocks || !atomic_load(&l->watched))
		return accept_global(fd, addr, len, flags);
	errno = 0;
	if (!wait_for_any(l, fd))
		return -1;
	return -2;
}

static int accept_shard(struct adoption *mine, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int accepted = accept_from(fd, addr, len, flags);

	if (accepted >= 0)
		count(mine ? &counters_of(mine->cpu)->accepted_local : &counters_here()->accepted_global);
	return accepted;
}

int llt_accept(struct listener *l, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct adoption *mine = adoption_of(l);
	int saved_errno = errno;
	int accepted;

	if (l->sharded || !l->cloned)
		return accept_shard(l->sharded ? mine : NULL, fd, addr, len, flags);
	do
		accepted = accept_first(l, mine, fd, addr, len, flags);
	while (accepted == -2);
	if (accepted >= 0)
		errno = saved_errno;
	return accepted;
}

/* ---- close() -------------------------------------------------------------------------------------------------- */

/*
 * This process accepts no longer. What waits in its clones is for whoever else watches the listener, and if nobody
 * does, for the next one that will: it waits as it would have waited in the application's one listener.
 */
static void leave_seat(struct seat *seat)
{
	if (leave_with_all_threads(seat) && !anybody_at(seat)) {
		atomic_store(&seat->tended_ms, 0);
		page_depart();
	}
}

void llt_drop(struct listener *l)
{
	bool adopted = anybody_adopts(l);

	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		leave_seat(&l->shared->seat[cpu]);
	if (l->cloned && adopted && !anybody_adopts(l))
		succession_unattended(l);
	if (l->cloned)
		close_clones(l);
	l->cloned = false;
}

/* The application closes a descriptor that is ours (all above 2, say). Others may hold the clone open, and listen on. */
void llt_drop_clone(int fd)
{
	struct listener *l = atomic_load(&listener_by_fd[fd]);

	for_each_clone(cpu, l) {
		if (atomic_load(&l->clone[cpu].fd) != fd)
			continue;
		leave_seat(&l->shared->seat[cpu]);
		if (is_ours(&l->clone[cpu], fd) && !anybody_adopts(l))
			stop_listening(l, cpu);
		forget_clone(l, cpu, fd);
		break;
	}
}

/* ---- shutdown(), and listen() after it: an application pauses its listener, and so its clones -------------------- */

void llt_shutdown(struct listener *l, int how)
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
