// SPDX-License-Identifier: MIT
/*
 * Fast-Epoll: a connection that has just been accepted enters the epoll only when it has to wait.
 *
 * EPOLL_CTL_ADD of such a connection is noted, not done. When its thread goes to wait, all connections noted since are
 * asked with one poll(); those that have something are reported at once, the rest are registered. One that has been
 * reported is registered when its thread waits again, and by then a short connection is closed: it never was in the
 * epoll tree.
 *
 * That is only done where nobody can tell: the epoll is waited for by one thread, which is the one that accepts; it
 * is in no other epoll, and no other process has it. Whatever else happens to the connection (another epoll, dup(),
 * fork(), a Unix socket) registers it first. Edge-triggered events may come once more than the kernel would send them,
 * never less; where they could come for nothing (EPOLLOUT), and for EPOLLONESHOT, nothing is put off.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

/* As many as one wait is likely to bring; the next are registered as ever. */
#define MAX_DEFERRED 64
#define SEVERAL (-1)
#define NOBODY_YET (-2)

/* Written by the thread that defers, before the descriptor becomes DEFERRED; the event later while it is BUSY. */
struct deferral {
	_Atomic uint64_t owner; /* that thread << 32 | the place in its list */
	atomic_int epfd;
	struct epoll_event event;
};

static struct deferral deferrals[MAX_FDS];
/* The one thread that waits for an epoll; SEVERAL: more, or others'; 0: not seen to be made, so it may be no epoll. */
static _Atomic pid_t waiter[MAX_FDS];

THREAD_LOCAL int deferred[MAX_DEFERRED];
THREAD_LOCAL unsigned int n_deferred;
THREAD_LOCAL pid_t thread;

static pid_t this_thread(void)
{
	if (!thread)
		thread = (pid_t)syscall(SYS_gettid);
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

/* ---- one connection ------------------------------------------------------------------------------------------- */

static bool change(int fd, enum descriptor from, enum descriptor to)
{
	uint8_t expected = (uint8_t)from;

	return atomic_compare_exchange_strong(&descriptors[fd], &expected, (uint8_t)to);
}

static void wait_while_busy(int fd)
{
	while (descriptor(fd) == BUSY && !is_owned_here(fd))
		sched_yield();
}

/* What cannot be registered (ENOSPC, ENOMEM) stays deferred, and is asked at every wait. */
static bool enter_epoll(int fd)
{
	struct epoll_event event;

	if (!change(fd, DEFERRED, BUSY) && !change(fd, REPORTED, BUSY)) {
		wait_while_busy(fd);
		return true;
	}
	event = deferrals[fd].event;
	if (real.epoll_ctl(deferrals[fd].epfd, EPOLL_CTL_ADD, fd, &event) && (errno == ENOSPC || errno == ENOMEM)) {
		change(fd, BUSY, DEFERRED);
		return false;
	}
	count(&counters_here()->registered);
	change(fd, BUSY, PLAIN);
	return true;
}

void fast_epoll_settle(int fd)
{
	int saved_errno = errno;

	if (descriptor(fd) >= DEFERRED)
		enter_epoll(fd);
	else if (descriptor(fd) == FRESH)
		change(fd, FRESH, PLAIN);
	errno = saved_errno;
}

void fast_epoll_closing(int fd)
{
	wait_while_busy(fd);
	set_descriptor(fd, UNKNOWN);
}

/* ---- epoll_ctl() ---------------------------------------------------------------------------------------------- */

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
		return change(fd, kind, PLAIN);
	if (op != EPOLL_CTL_MOD || !event || !can_wait(event) || !change(fd, kind, BUSY))
		return false;
	deferrals[fd].event = *event;
	return change(fd, BUSY, kind);
}

bool fast_epoll_defers(int epfd, int op, int fd, const struct epoll_event *event)
{
	enum descriptor kind = descriptor(fd);

	if (kind == FRESH && op == EPOLL_CTL_ADD && defer(epfd, fd, event))
		return true;
	if (kind >= DEFERRED && change_deferral(epfd, op, fd, event))
		return true;
	if (kind >= FRESH)
		fast_epoll_settle(fd);
	if (op == EPOLL_CTL_ADD)
		fast_epoll_shared(fd); /* should it be an epoll itself */
	return false;
}

/* ---- who waits for an epoll ----------------------------------------------------------------------------------- */

void fast_epoll_created(int epfd)
{
	if ((unsigned int)epfd < MAX_FDS)
		atomic_store(&waiter[epfd], NOBODY_YET);
}

static void settle_those_of(int epfd)
{
	for (int fd = 0; fd < MAX_FDS; fd++)
		if (descriptor(fd) >= DEFERRED && deferrals[fd].epfd == epfd)
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
	pid_t before = NOBODY_YET;

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
		if (descriptor(fd) >= DEFERRED && deferrals[fd].epfd == epfd && !change(fd, DEFERRED, PLAIN))
			change(fd, REPORTED, PLAIN);
}

/* ---- epoll_wait() --------------------------------------------------------------------------------------------- */

static bool is_still_mine(unsigned int place)
{
	int fd = deferred[place];
	enum descriptor kind = descriptor(fd);

	return (kind == DEFERRED || kind == REPORTED) && atomic_load(&deferrals[fd].owner) == owned_at(place);
}

/* Keeps those that wait for this epoll, or for memory; the rest are in their epolls then, or gone. */
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
			asked[i].revents = 0; /* then they are registered, and the kernel tells */
}

static bool report(int fd, short happened, struct epoll_event *event)
{
	struct epoll_event told = { .events = (uint16_t)happened, .data = deferrals[fd].event.data };

	if (!change(fd, DEFERRED, REPORTED)) /* another thread closed it meanwhile */
		return false;
	*event = told;
	return true;
}

int fast_epoll_collect(int epfd, struct epoll_event *events, int room)
{
	struct pollfd asked[MAX_DEFERRED];
	int n = 0;

	note_waiter(epfd);
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

/* ---- other ways to wait, and fork() ---------------------------------------------------------------------------- */

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
		if (descriptor(fd) >= DEFERRED)
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
