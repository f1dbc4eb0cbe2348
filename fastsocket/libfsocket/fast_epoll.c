// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>

#include "descriptors.h"
#include "fast_epoll.h"
#include "real.h"
#include "shared.h"

/*
 * A thread defers at most this many connections, more than one wait is likely to bring. Further ones are registered at
 * once.
 */
#define MAX_DEFERRED 64
#define SEVERAL (-1)
#define NO_THREAD_YET (-2)

/*
 * What the library knows of a deferred connection. The thread that defers it writes this before the descriptor becomes
 * DEFERRED. It changes the event later only while the descriptor is BUSY.
 */
struct deferral {
	_Atomic uint64_t owner; /* that thread << 32 | the place in its list */
	atomic_int epfd;
	struct epoll_event event;
};

static struct deferral deferrals[MAX_FDS];
/*
 * The thread that waits for an epoll. NO_THREAD_YET: none so far. SEVERAL: more than one thread, or another process. 0:
 * the library has not seen that this descriptor was made an epoll, so it may be none.
 */
static _Atomic pid_t waiter[MAX_FDS];

THREAD_LOCAL int deferred[MAX_DEFERRED];
THREAD_LOCAL unsigned int n_deferred;
THREAD_LOCAL pid_t thread;
THREAD_LOCAL bool refused; /* the kernel has refused to register a connection since the last fast_epoll_collect() */

static pid_t this_thread(void)
{
	if (!thread)
		thread = (pid_t)real.syscall(SYS_gettid);
	return thread;
}

static uint64_t owned_at(unsigned int place)
{
	return (uint64_t)this_thread() << 32 | place;
}

static bool is_owned_here(int fd)
{
	return atomic_load(&deferrals[fd].owner) >> 32 == (uint64_t)this_thread();
}

static void wait_while_busy(int fd)
{
	while (descriptor(fd) == BUSY && !is_owned_here(fd))
		sched_yield();
}

/*
 * Registers a deferred connection in its epoll. If the kernel refuses for lack of memory, the connection stays
 * deferred, and its thread asks for it again and again. If it is registered already, or closed (EEXIST, EBADF), nothing
 * is to be done.
 */
static bool enter_epoll(int fd)
{
	struct epoll_event event;

	if (!change_descriptor(fd, DEFERRED, BUSY) && !change_descriptor(fd, REPORTED, BUSY)) {
		wait_while_busy(fd);
		return true;
	}
	event = deferrals[fd].event;
	if (real.epoll_ctl(deferrals[fd].epfd, EPOLL_CTL_ADD, fd, &event) && errno != EEXIST && errno != EBADF) {
		change_descriptor(fd, BUSY, DEFERRED);
		refused = true;
		return false;
	}
	count(&counters_here()->registered);
	change_descriptor(fd, BUSY, PLAIN);
	return true;
}

void fast_epoll_settle(int fd)
{
	int saved_errno = errno;

	if (is_deferred(descriptor(fd)))
		enter_epoll(fd);
	else if (descriptor(fd) == FRESH)
		change_descriptor(fd, FRESH, PLAIN);
	errno = saved_errno;
}

void fast_epoll_closing(int fd)
{
	wait_while_busy(fd);
	set_descriptor(fd, UNKNOWN);
}

/* ---- epoll_ctl() ---- */

static bool can_wait(const struct epoll_event *event)
{
	return !(event->events & (EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP)) &&
	       (event->events & (EPOLLET | EPOLLOUT)) != (EPOLLET | EPOLLOUT);
}

static bool defer(int epfd, int fd, const struct epoll_event *event)
{
	if (n_deferred == MAX_DEFERRED || !event || !can_wait(event) || (unsigned int)epfd >= MAX_FDS ||
	    atomic_load_explicit(&waiter[epfd], memory_order_relaxed) != this_thread())
		return false;
	atomic_store(&deferrals[fd].owner, owned_at(n_deferred));
	atomic_store(&deferrals[fd].epfd, epfd);
	deferrals[fd].event = *event;
	deferred[n_deferred++] = fd;
	set_descriptor(fd, DEFERRED);
	count(&counters_here()->deferred);
	return true;
}

static bool change_deferral(int epfd, int op, int fd, const struct epoll_event *event)
{
	enum descriptor kind = descriptor(fd);

	if (atomic_load(&deferrals[fd].epfd) != epfd || !is_owned_here(fd) || kind == BUSY)
		return false;
	if (op == EPOLL_CTL_DEL)
		return change_descriptor(fd, kind, PLAIN);
	if (op != EPOLL_CTL_MOD || !event || !can_wait(event) || !change_descriptor(fd, kind, BUSY))
		return false;
	deferrals[fd].event = *event;
	return change_descriptor(fd, BUSY, kind);
}

bool fast_epoll_defers(int epfd, int op, int fd, const struct epoll_event *event)
{
	enum descriptor kind = descriptor(fd);

	if (kind == FRESH && op == EPOLL_CTL_ADD && defer(epfd, fd, event))
		return true;
	if (is_deferred(kind) && change_deferral(epfd, op, fd, event))
		return true;
	if (kind >= FRESH)
		fast_epoll_settle(fd);
	if (op == EPOLL_CTL_ADD)
		fast_epoll_shared(fd); /* it may be an epoll itself */
	return false;
}

/* ---- which thread waits for an epoll ---- */

void fast_epoll_created(int epfd)
{
	if ((unsigned int)epfd < MAX_FDS)
		atomic_store(&waiter[epfd], NO_THREAD_YET);
}

static void settle_those_of(int epfd)
{
	for (int fd = 0; fd < MAX_FDS; fd++)
		if (is_deferred(descriptor(fd)) && deferrals[fd].epfd == epfd)
			fast_epoll_settle(fd);
}

void fast_epoll_shared(int epfd)
{
	if ((unsigned int)epfd < MAX_FDS && (descriptor(epfd) <= PLAIN || descriptor(epfd) == WATCHING) &&
	    atomic_exchange(&waiter[epfd], SEVERAL) > 0)
		settle_those_of(epfd);
}

static void note_waiter(int epfd)
{
	pid_t before = NO_THREAD_YET;

	if ((unsigned int)epfd >= MAX_FDS || !atomic_load(&waiter[epfd]) ||
	    atomic_load(&waiter[epfd]) == this_thread() || atomic_load(&waiter[epfd]) == SEVERAL ||
	    atomic_compare_exchange_strong(&waiter[epfd], &before, thread))
		return;
	atomic_store(&waiter[epfd], SEVERAL);
	settle_those_of(epfd);
}

void fast_epoll_epoll_closing(int epfd)
{
	if (!atomic_exchange(&waiter[epfd], 0))
		return;
	for (int fd = 0; fd < MAX_FDS; fd++)
		if (is_deferred(descriptor(fd)) && deferrals[fd].epfd == epfd &&
		    !change_descriptor(fd, DEFERRED, PLAIN))
			change_descriptor(fd, REPORTED, PLAIN);
}

/* ---- epoll_wait() ---- */

static bool is_still_mine(unsigned int place)
{
	int fd = deferred[place];
	enum descriptor kind = descriptor(fd);

	return (kind == DEFERRED || kind == REPORTED) && atomic_load(&deferrals[fd].owner) == owned_at(place);
}

/*
 * Registers everything that was deferred for another epoll or has had its event. Keeps the others, and those whose
 * registration failed for lack of memory.
 */
static void settle_others(int epfd)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < n_deferred; i++) {
		int fd = deferred[i];

		if (!is_still_mine(i) ||
		    ((deferrals[fd].epfd != epfd || descriptor(fd) == REPORTED) && enter_epoll(fd)))
			continue;
		atomic_store(&deferrals[fd].owner, owned_at(kept));
		deferred[kept++] = fd;
	}
	n_deferred = kept;
}

static void ask(struct pollfd *asked)
{
	for (unsigned int i = 0; i < n_deferred; i++)
		asked[i] = (struct pollfd){ .fd = deferred[i], .events = (short)deferrals[deferred[i]].event.events };
	if (real.poll(asked, n_deferred, 0) < 0)
		for (unsigned int i = 0; i < n_deferred; i++)
			asked[i].revents = 0; /* they are registered next, and the kernel reports them */
}

static bool report(int fd, short happened, struct epoll_event *event)
{
	struct epoll_event told = { .events = (uint16_t)happened, .data = deferrals[fd].event.data };

	if (!change_descriptor(fd, DEFERRED, REPORTED)) /* another thread has closed or registered it */
		return false;
	*event = told;
	return true;
}

int fast_epoll_collect(int epfd, struct epoll_event *events, int room)
{
	struct pollfd asked[MAX_DEFERRED];
	int n = 0;

	note_waiter(epfd);
	refused = false;
	if (!n_deferred)
		return 0;
	settle_others(epfd);
	if (!n_deferred)
		return 0;
	ask(asked);
	for (unsigned int i = 0; i < n_deferred; i++) {
		if (!asked[i].revents || asked[i].revents & POLLNVAL)
			enter_epoll(asked[i].fd);
		else if (n < room && report(asked[i].fd, asked[i].revents, &events[n]))
			n++;
	}
	return n;
}

bool fast_epoll_asks_again(void)
{
	return refused;
}

/* ---- other ways to wait, and fork() ---- */

void fast_epoll_polls(const struct pollfd *fds, nfds_t n)
{
	if (n_deferred)
		settle_others(-1);
	for (nfds_t i = 0; i < n; i++)
		if ((unsigned int)fds[i].fd < MAX_FDS && atomic_load(&waiter[fds[i].fd]) > 0) {
			atomic_store(&waiter[fds[i].fd], SEVERAL);
			settle_those_of(fds[i].fd);
		}
}

void fast_epoll_before_fork(void)
{
	for (int fd = 0; fd < MAX_FDS; fd++) {
		if (is_deferred(descriptor(fd)))
			fast_epoll_settle(fd);
		if (atomic_load_explicit(&waiter[fd], memory_order_relaxed))
			atomic_store(&waiter[fd], SEVERAL);
	}
}

void fast_epoll_forget_threads(void)
{
	thread = 0;
	n_deferred = 0;
}
