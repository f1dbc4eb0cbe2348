// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>

#include "preload.h"
#include "closing.h"
#include "fast_epoll.h"
#include "clock.h"
#include "listeners.h"
#include "polling.h"
#include "process.h"
#include "readable.h"
#include "shared.h"
#include "turn.h"
#include "waiting.h"
#include "watches.h"

static int epoll_created(int epfd)
{
	if (epfd >= 0) {
		new_descriptor(epfd, PLAIN);
		fast_epoll_created(epfd);
	}
	return epfd;
}

INTERPOSED int epoll_create(int size)
{
	return epoll_created(REAL(epoll_create)(size));
}

INTERPOSED int epoll_create1(int flags)
{
	return epoll_created(REAL(epoll_create1)(flags));
}

INTERPOSED int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	enum descriptor kind = descriptor(fd);
	struct listener *l;
	int result;

	if (settings.fast_epoll && fast_epoll_defers(epfd, op, fd, event))
		return 0;
	if (!likely(!connection(fd)) && op != EPOLL_CTL_DEL)
		turn_watches(fd);
	result = REAL(epoll_ctl)(epfd, op, fd, event);
	if (likely(kind != LISTENER && ((kind != UNKNOWN && kind != WATCHING) || op != EPOLL_CTL_ADD)) || result ||
	    !settings.enabled)
		return result;
	if (kind == WATCHING) { /* a thread that waits for this epoll waits for the inner one too */
		set_descriptor(epfd, WATCHING);
		return result;
	}
	l = kind == LISTENER ? find_listener(fd) : listeners_discover(fd, INHERITED_BY_EXEC);
	if (l)
		watch_changed(l, epfd, op, fd, event);
	return result;
}

/* Does the library have anything to do when this thread waits? */
static bool attends(int epfd)
{
	return !likely(descriptor(epfd) != WATCHING && !settings.fast_epoll) && !seccomp_was_installed();
}

INTERPOSED int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout)
{
	struct wait wait;

	turn_ends();
	if (likely(!attends(epfd)))
		return REAL(epoll_wait)(epfd, events, room, timeout);
	wait = (struct wait){ .epfd = epfd, .events = events, .room = room, .timeout_ms = timeout };
	return wait_for_events(&wait);
}

INTERPOSED int epoll_pwait(int epfd, struct epoll_event *events, int room, int timeout, const sigset_t *mask)
{
	struct wait wait;

	turn_ends();
	if (likely(!attends(epfd)))
		return REAL(epoll_pwait)(epfd, events, room, timeout, mask);
	wait = (struct wait){
		.epfd = epfd, .events = events, .room = room, .timeout_ms = timeout, .has_mask = true, .mask = mask
	};
	return wait_for_events(&wait);
}

INTERPOSED int epoll_pwait2(int epfd, struct epoll_event *events, int room, const struct timespec *timeout,
                            const sigset_t *mask)
{
	struct wait wait;

	turn_ends();
	if (!REAL(epoll_pwait2)) { /* glibc before 2.35 */
		errno = ENOSYS;
		return -1;
	}
	if (likely(!attends(epfd)) || !is_time(timeout))
		return REAL(epoll_pwait2)(epfd, events, room, timeout, mask);
	wait = (struct wait){ .epfd = epfd,
	                      .events = events,
	                      .room = room,
	                      .in_ns = true,
	                      .timeout = timeout,
	                      .has_mask = true,
	                      .mask = mask };
	return wait_for_events(&wait);
}

/* Does the library have to look at what is polled? */
static bool looks_at_polls(void)
{
	return settings.fast_epoll || shared_is_open();
}

static bool has_listener(struct pollfd *fds, nfds_t n)
{
	if (settings.fast_epoll && n <= MAX_FDS && is_readable(fds, n * sizeof(*fds)))
		fast_epoll_polls(fds, n);
	return polls_a_listener(fds, n);
}

static __attribute__((noinline)) int poll_looking(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec until = { .tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L };

	if (!has_listener(fds, n))
		return REAL(poll)(fds, n, timeout);
	return poll_in_slices(fds, n, timeout < 0 ? NULL : &until, NULL);
}

INTERPOSED int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	turn_ends();
	return likely(!looks_at_polls()) ? REAL(poll)(fds, n, timeout) : poll_looking(fds, n, timeout);
}

INTERPOSED int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	turn_ends();
	if (likely(!looks_at_polls()) || !has_listener(fds, n) || !is_time(timeout))
		return REAL(ppoll)(fds, n, timeout, mask);
	return poll_in_slices(fds, n, timeout, mask);
}

/* A program built with _FORTIFY_SOURCE calls these instead, with the size of its array. */
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t size);
void __chk_fail(void) __attribute__((noreturn));

INTERPOSED int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
	if (size / sizeof(*fds) < n)
		__chk_fail();
	return poll(fds, n, timeout);
}

INTERPOSED int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
                           size_t size)
{
	if (size / sizeof(*fds) < n)
		__chk_fail();
	return ppoll(fds, n, timeout, mask);
}

static bool are_sets(int n, const fd_set *out, const fd_set *except)
{
	return (!out || is_set(n, out)) && (!except || is_set(n, except));
}

static bool is_time_for_select(const struct timeval *time)
{
	return !time ||
	       (is_readable(time, sizeof(*time)) && time->tv_sec >= 0 && time->tv_usec >= 0 && time->tv_usec < 1000000);
}

/* Linux writes the remaining time (select(2)). */
static int select_until(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
	struct timespec until = { 0 }, began, ended;
	int64_t left;
	int ready;

	if (!timeout)
		return select_in_slices(n, in, out, except, NULL, NULL);
	until = (struct timespec){ .tv_sec = timeout->tv_sec, .tv_nsec = timeout->tv_usec * 1000 };
	clock_gettime(CLOCK_MONOTONIC, &began);
	ready = select_in_slices(n, in, out, except, &until, NULL);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	left = (until.tv_sec + began.tv_sec - ended.tv_sec) * 1000000 +
	       (until.tv_nsec + began.tv_nsec - ended.tv_nsec) / 1000;
	left = left > 0 ? left : 0;
	*timeout = (struct timeval){ .tv_sec = left / 1000000, .tv_usec = left % 1000000 };
	return ready;
}

INTERPOSED int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
                      struct timeval *restrict timeout)
{
	turn_ends();
	if (settings.fast_epoll)
		fast_epoll_polls(NULL, 0);
	if (likely(!in || !settings.enabled || !selects_a_listener(n, in)) || !are_sets(n, out, except) ||
	    !is_time_for_select(timeout))
		return REAL(select)(n, in, out, except, timeout);
	return select_until(n, in, out, except, timeout);
}

INTERPOSED int pselect(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
                       const struct timespec *restrict timeout, const sigset_t *restrict mask)
{
	turn_ends();
	if (settings.fast_epoll)
		fast_epoll_polls(NULL, 0);
	if (likely(!in || !settings.enabled || !selects_a_listener(n, in)) || !are_sets(n, out, except) ||
	    !is_time(timeout))
		return REAL(pselect)(n, in, out, except, timeout, mask);
	return select_in_slices(n, in, out, except, timeout, mask);
}

/* ---- sleep ---- */

INTERPOSED int nanosleep(const struct timespec *time, struct timespec *left)
{
	turn_ends();
	return REAL(nanosleep)(time, left);
}

INTERPOSED int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left)
{
	turn_ends();
	return REAL(clock_nanosleep)(clock, flags, time, left);
}

INTERPOSED int usleep(useconds_t time)
{
	turn_ends();
	return REAL(usleep)(time);
}

INTERPOSED unsigned int sleep(unsigned int seconds)
{
	turn_ends();
	return REAL(sleep)(seconds);
}
