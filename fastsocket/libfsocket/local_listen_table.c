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
 * the application sees of them changes. Sources: socket(7); Linux b261eda84ec1 (SO_INCOMING_CPU in reuseport groups).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fsocket.h"

#define for_each_clone(cpu, l)                                    \
	for (int cpu = 0; cpu < (l)->cpus_end; cpu++)             \
		if (CPU_ISSET(cpu, &(l)->cpus))

#define MAX_LISTENERS 64
/* The global listener has its turn after this many accepts, so that a busy local one cannot starve it. */
#define ACCEPTS_PER_GLOBAL_TURN 32
/* A process past these, on one CPU, adopts too, but nobody waits for it when the last of these stops listening. */
#define MAX_ADOPTERS 16

struct clone {
	atomic_int fd;       /* -1: none */
	atomic_int watchers; /* epolls where this process watches it; 0: not adopted here */
	uint64_t cookie;     /* SO_COOKIE: is that descriptor still the socket we made? */
};

/* The processes that accept from the clone of one CPU; 0 or a dead one: a free place. */
struct adopters {
	pid_t pid[MAX_ADOPTERS];
};

/* What all descendants of the process that called listen() have in common. */
struct shared {
	pthread_mutex_t lock; /* robust, taken under table_lock; cold paths only */
	uint32_t tickets;     /* adoptions by workers nobody had pinned */
	struct adopters adopters[CPU_SETSIZE];
};

struct listener {
	int fd;
	int backlog;
	uint32_t generation; /* tells a thread that its adoption was of an earlier user of this entry */
	pid_t creator;
	cpu_set_t cpus;      /* that have a clone */
	int cpus_end;        /* past the highest of them */
	atomic_int watched;  /* the sum of its clones' watchers */
	struct shared *shared;
	struct clone clone[CPU_SETSIZE];
};

struct adoption {
	uint32_t generation;
	int cpu;
	unsigned int until_global_turn;
};

static struct listener listeners[MAX_LISTENERS];
static _Atomic(struct listener *) listener_by_fd[MAX_FDS];
static _Atomic(struct listener *) clone_by_fd[MAX_FDS];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER; /* cold paths only: listen, adopt, close */
static uint32_t next_generation = 1;
static bool may_pin = true;
static pid_t table_owner; /* differs from getpid() in the child of a vfork(), which borrows its parent's memory */

static __thread struct adoption adoptions[MAX_LISTENERS] __attribute__((tls_model("initial-exec")));

static void before_fork(void)
{
	pthread_mutex_lock(&table_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&table_lock);
}

/* What the parent's thread adopted is the parent's: the child chooses a CPU of its own. */
static void after_fork_in_child(void)
{
	table_owner = getpid();
	memset(adoptions, 0, sizeof(adoptions));
	after_fork();
}

void llt_configure(void)
{
	const char *pin = getenv("FSOCKET_PIN");

	may_pin = !pin || strcmp(pin, "never") != 0;
	table_owner = getpid();
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

struct listener *llt_find(int fd)
{
	if ((unsigned int)fd >= MAX_FDS)
		return NULL;
	return atomic_load_explicit(&listener_by_fd[fd], memory_order_acquire);
}

/* ---- listen(): clone ------------------------------------------------------------------------------------------ */

static void watch(struct listener *l, int cpu, int difference)
{
	atomic_fetch_add(&l->clone[cpu].watchers, difference);
	atomic_fetch_add(&l->watched, difference);
}

static void forget_clone(struct listener *l, int cpu, int fd)
{
	watch(l, cpu, -atomic_load(&l->clone[cpu].watchers));
	atomic_store(&l->clone[cpu].fd, -1);
	atomic_store(&clone_by_fd[fd], NULL);
}

/* False when it was closed behind our back: what has that number now is the application's. */
static bool is_ours(const struct clone *clone, int fd)
{
	return cookie_of(fd) == clone->cookie;
}

/* The clone of a CPU, or -1 where it is gone. */
static int clone_of(const struct listener *l, int cpu)
{
	int fd = atomic_load(&l->clone[cpu].fd);

	return fd >= 0 && is_ours(&l->clone[cpu], fd) ? fd : -1;
}

static void close_clones(struct listener *l)
{
	for_each_clone(cpu, l) {
		int fd = atomic_load(&l->clone[cpu].fd);

		if (fd < 0)
			continue;
		forget_clone(l, cpu, fd);
		if (is_ours(&l->clone[cpu], fd))
			real.close(fd);
	}
	CPU_ZERO(&l->cpus);
}

static bool clone_for_each_cpu(struct listener *l, const cpu_set_t *cpus)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		struct clone *clone = &l->clone[cpu];
		int fd;

		if (!CPU_ISSET(cpu, cpus))
			continue;
		fd = bind_clone(l->fd, cpu);
		if (fd < 0)
			return false;
		clone->cookie = cookie_of(fd);
		atomic_store(&clone->watchers, 0);
		atomic_store(&clone->fd, fd);
		atomic_store(&clone_by_fd[fd], l);
		CPU_SET(cpu, &l->cpus);
		l->cpus_end = cpu + 1;
	}
	return true;
}

static bool share_with_descendants(struct listener *l)
{
	pthread_mutexattr_t attributes;
	struct shared *map = mmap(NULL, sizeof(*map), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return false;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&map->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
	l->shared = map;
	return true;
}

/* A worker that died with the lock left at worst a place taken by a pid that is dead, which is free. */
static void lock_shared(struct shared *shared)
{
	if (pthread_mutex_lock(&shared->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&shared->lock);
}

static void unlock_shared(struct shared *shared)
{
	pthread_mutex_unlock(&shared->lock);
}

static bool is_alive(pid_t pid)
{
	return pid && (kill(pid, 0) == 0 || errno != ESRCH);
}

static bool anybody(const struct adopters *adopters)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		if (is_alive(adopters->pid[i]))
			return true;
	return false;
}

static bool leave(struct adopters *adopters)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++) {
		if (adopters->pid[i] != getpid())
			continue;
		adopters->pid[i] = 0;
		return true;
	}
	return false;
}

static void enrol(struct adopters *adopters)
{
	leave(adopters);
	for (size_t i = 0; i < MAX_ADOPTERS; i++) {
		if (is_alive(adopters->pid[i]))
			continue;
		adopters->pid[i] = getpid();
		return;
	}
}

static struct listener *free_entry(void)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (!listeners[i].generation)
			return &listeners[i];
	return NULL;
}

static bool is_tcp(int fd)
{
	int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, -1);

	return (domain == AF_INET || domain == AF_INET6) && get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

/* Returns NULL when every CPU has its clone, else the step that did not work. */
static const char *fill(struct listener *l, int fd, int backlog)
{
	cpu_set_t cpus;

	l->fd = fd;
	l->backlog = backlog;
	l->creator = getpid();
	l->cpus_end = 0;
	atomic_store(&l->watched, 0);
	CPU_ZERO(&l->cpus);
	if (!kernel_honours_incoming_cpu())
		return "this kernel ignores SO_INCOMING_CPU among SO_REUSEPORT listeners (Linux 6.2 or a backport has it)";
	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		return "the CPU affinity cannot be read";
	if (!counters_open() || !share_with_descendants(l))
		return "no memory to share with the workers";
	if (!set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1))
		return "SO_REUSEPORT is refused";
	if (clone_for_each_cpu(l, &cpus))
		return NULL;
	int saved_errno = errno;
	close_clones(l);
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 0);
	errno = saved_errno;
	return "the listener cannot be cloned";
}

static void drop_shared(struct listener *l)
{
	if (l->shared)
		munmap(l->shared, sizeof(*l->shared));
	l->shared = NULL;
}

static void clone_listener(int fd, int backlog)
{
	struct listener *l = free_entry();
	const char *problem = l ? fill(l, fd, backlog) : "more than 64 listeners";

	if (problem) {
		fsocket_log("%s (%s); the application runs without Fastsocket on this listener", problem,
			    strerror(errno));
		if (l)
			drop_shared(l);
		return;
	}
	l->generation = next_generation++;
	atomic_store_explicit(&listener_by_fd[fd], l, memory_order_release);
}

/* A new backlog, or the end of a pause that shutdown() began: for the clones that somebody accepts from, too. */
static void listen_again(struct listener *l, int backlog)
{
	l->backlog = backlog;
	lock_shared(l->shared);
	for_each_clone(cpu, l) {
		int fd = clone_of(l, cpu);

		if (fd >= 0 && anybody(&l->shared->adopters[cpu]))
			real.listen(fd, backlog);
	}
	unlock_shared(l->shared);
}

void llt_listen(int fd, int backlog)
{
	struct listener *l;

	if ((unsigned int)fd >= MAX_FDS || !is_tcp(fd))
		return;
	pthread_mutex_lock(&table_lock);
	l = llt_find(fd);
	if (l)
		listen_again(l, backlog);
	else if (!get_int(fd, SOL_SOCKET, SO_REUSEPORT, 0)) /* set: the application shards its listeners itself */
		clone_listener(fd, backlog);
	pthread_mutex_unlock(&table_lock);
}

/* ---- epoll_ctl(): adopt --------------------------------------------------------------------------------------- */

static struct adoption *adoption_of(const struct listener *l)
{
	struct adoption *mine = &adoptions[l - listeners];

	return mine->generation == l->generation ? mine : NULL;
}

/* A worker that nobody pinned: the CPU of one that died, else the next in turn. */
static int next_cpu(struct listener *l, const cpu_set_t *allowed)
{
	cpu_set_t candidates;
	int turn, cpu;

	CPU_AND(&candidates, allowed, &l->cpus);
	if (!CPU_COUNT(&candidates))
		return -1;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &candidates) && !anybody(&l->shared->adopters[cpu]))
			return cpu;
	turn = (int)(l->shared->tickets++ % (uint32_t)CPU_COUNT(&candidates));
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

/*
 * The CPU whose connections the calling thread is to serve, or -1. Locality needs a thread that stays where it is: one
 * that is pinned already, or a worker process (forked after listen()), which we pin as the original Fastsocket did. A
 * server that is a single unpinned process keeps its freedom, and its one listener.
 */
static int choose_cpu(struct listener *l)
{
	cpu_set_t allowed, one;
	int cpu;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -1;
	cpu = pinned_cpu(&allowed);
	if (cpu >= 0 || !may_pin || getpid() == l->creator)
		return cpu;
	cpu = next_cpu(l, &allowed);
	if (cpu < 0)
		return -1;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(0, sizeof(one), &one) ? -1 : cpu;
}

/* Leave the reuseport group again, unless another process accepts from the clone, too. */
static void stop_listening(struct listener *l, int cpu, int fd)
{
	struct adopters *adopters = &l->shared->adopters[cpu];

	if (leave(adopters) && !anybody(adopters))
		real.shutdown(fd, SHUT_RD);
}

static bool start_watching(struct listener *l, int cpu, int fd, int epfd, struct epoll_event *event)
{
	if (real.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, event))
		return errno == EEXIST;
	watch(l, cpu, 1);
	return true;
}

static bool start_listening(struct listener *l, int cpu, int epfd, struct epoll_event *event)
{
	int fd = clone_of(l, cpu);

	if (fd < 0 || has_filter(l->fd) || !copy_rest(l->fd, fd))
		return false;
	enrol(&l->shared->adopters[cpu]);
	if (!real.listen(fd, l->backlog) && start_watching(l, cpu, fd, epfd, event))
		return true;
	if (!atomic_load(&l->clone[cpu].watchers)) /* what nobody watches must not receive */
		stop_listening(l, cpu, fd);
	return false;
}

/* Accepting tries the clone first, so the listener itself must not block where the clone has nothing. */
static bool is_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && flags & O_NONBLOCK;
}

static void adopt(struct listener *l, int epfd, struct epoll_event *event)
{
	struct adoption *again = adoption_of(l);
	int cpu = again ? again->cpu : is_nonblocking(l->fd) ? choose_cpu(l) : -1;

	if (cpu < 0 || !CPU_ISSET(cpu, &l->cpus) || !start_listening(l, cpu, epfd, event)) {
		count(&counters_of(sched_getcpu())->fallen_back);
		return;
	}
	if (!again)
		count(&counters_of(cpu)->adopted);
	adoptions[l - listeners] = (struct adoption){ l->generation, cpu, ACCEPTS_PER_GLOBAL_TURN };
}

/* Threads pinned to one CPU watch one clone, each in its own epoll: the kernel knows which of them this one has. */
static void mirror(struct listener *l, int epfd, int op, struct epoll_event *event)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->clone[cpu].watchers) &&
		    !real.epoll_ctl(epfd, op, atomic_load(&l->clone[cpu].fd), event) && op == EPOLL_CTL_DEL)
			watch(l, cpu, -1);
}

void llt_epoll_ctl(struct listener *l, int epfd, int op, struct epoll_event *event)
{
	pthread_mutex_lock(&table_lock);
	lock_shared(l->shared);
	if (op == EPOLL_CTL_ADD)
		adopt(l, epfd, event);
	else
		mirror(l, epfd, op, event);
	unlock_shared(l->shared);
	pthread_mutex_unlock(&table_lock);
}

/* ---- accept() ------------------------------------------------------------------------------------------------- */

static int accept_global(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int accepted = flags ? real.accept4(fd, addr, len, flags) : real.accept(fd, addr, len);

	if (accepted >= 0)
		count(&counters_of(sched_getcpu())->accepted_global);
	return accepted;
}

/* -1 with *empty: nothing here, look elsewhere. -1 without: an error that the application has to see. */
static int accept_local(struct listener *l, int cpu, struct sockaddr *addr, socklen_t *len, int flags, bool *empty)
{
	int fd = atomic_load_explicit(&l->clone[cpu].fd, memory_order_relaxed);
	int accepted = fd < 0 ? -1 : real.accept4(fd, addr, len, flags);

	if (accepted >= 0)
		count(&counters_of(cpu)->accepted_local);
	else /* EINVAL, EBADF, ENOTSOCK: the clone is gone, which is ours to bear */
		*empty = fd < 0 || errno == EAGAIN || errno == EINVAL || errno == EBADF || errno == ENOTSOCK;
	return accepted;
}

/* A thread that accepts what another thread watches: look at all that this process has adopted. */
static int accept_any_local(struct listener *l, struct sockaddr *addr, socklen_t *len, int flags, bool *empty)
{
	int accepted = -1;

	*empty = true;
	if (!atomic_load_explicit(&l->watched, memory_order_relaxed))
		return -1;
	for_each_clone(cpu, l) {
		if (!atomic_load(&l->clone[cpu].watchers))
			continue;
		accepted = accept_local(l, cpu, addr, len, flags, empty);
		if (accepted >= 0 || !*empty)
			break;
	}
	return accepted;
}

int llt_accept(struct listener *l, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int saved_errno = errno;
	struct adoption *mine = adoption_of(l);
	bool empty = false;
	int accepted = -1;

	if (mine && --mine->until_global_turn == 0) {
		mine->until_global_turn = ACCEPTS_PER_GLOBAL_TURN;
		accepted = accept_global(fd, addr, len, flags);
	}
	if (accepted < 0)
		accepted = mine ? accept_local(l, mine->cpu, addr, len, flags, &empty)
				: accept_any_local(l, addr, len, flags, &empty);
	if (accepted < 0 && empty)
		accepted = accept_global(fd, addr, len, flags);
	if (accepted >= 0)
		errno = saved_errno;
	return accepted;
}

/* ---- close() -------------------------------------------------------------------------------------------------- */

static void drop_listener(struct listener *l)
{
	atomic_store(&listener_by_fd[l->fd], NULL);
	lock_shared(l->shared);
	for_each_clone(cpu, l) {
		int fd = clone_of(l, cpu);

		if (fd >= 0)
			stop_listening(l, cpu, fd);
	}
	unlock_shared(l->shared);
	close_clones(l);
	drop_shared(l);
	l->generation = 0;
}

/* Others may hold it open: a clone that listened on would get connections that nobody here accepts. */
static void drop_clone(struct listener *l, int fd)
{
	lock_shared(l->shared);
	for_each_clone(cpu, l) {
		if (atomic_load(&l->clone[cpu].fd) != fd)
			continue;
		if (is_ours(&l->clone[cpu], fd))
			stop_listening(l, cpu, fd);
		forget_clone(l, cpu, fd);
	}
	unlock_shared(l->shared);
}

/* ---- shutdown(), and listen() after it: an application pauses its listener, and so its clones -------------------- */

void llt_shutdown(struct listener *l, int how)
{
	pthread_mutex_lock(&table_lock);
	for_each_clone(cpu, l) {
		int fd = clone_of(l, cpu);

		if (fd >= 0)
			real.shutdown(fd, how);
	}
	pthread_mutex_unlock(&table_lock);
}

void llt_closing(unsigned int first, unsigned int last)
{
	struct listener *l;

	for (unsigned int fd = first; fd <= last && fd < MAX_FDS; fd++) {
		if (likely(!atomic_load_explicit(&listener_by_fd[fd], memory_order_relaxed) &&
			   !atomic_load_explicit(&clone_by_fd[fd], memory_order_relaxed)))
			continue;
		if (getpid() != table_owner)
			return;
		pthread_mutex_lock(&table_lock);
		l = atomic_load(&listener_by_fd[fd]);
		if (l)
			drop_listener(l);
		l = atomic_load(&clone_by_fd[fd]);
		if (l)
			drop_clone(l, (int)fd);
		pthread_mutex_unlock(&table_lock);
	}
}
