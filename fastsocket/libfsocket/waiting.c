// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>

#include "bell.h"
#include "clock.h"
#include "fast_epoll.h"
#include "look.h"
#include "queue.h"
#include "real.h"
#include "settings.h"
#include "waiting.h"

#define ASK_AGAIN_MS 10

/*
 * The kernel has reported events, the first of them at index `first`. Takes out those that are not for the application,
 * and returns how many are left.
 */
static int for_application(const struct wait *wait, int reported, int first)
{
	struct epoll_event *events = wait->events + first;

	return reported > 0 ? each_once(events, bells_heard(wait->epfd, events, reported)) : reported;
}

/*
 * Waits in the kernel for some milliseconds. Once signals are kept off (quiet.h), this takes epoll_pwait(). A seccomp
 * filter may allow the application's epoll_wait(), and not that: then the signals come as usual.
 */
static int wait_for_ms(const struct wait *wait, struct quiet *quiet, int ms)
{
	int saved_errno = errno, reported;

	if (wait->has_mask || quiet->is_begun) {
		reported = real.epoll_pwait(wait->epfd, wait->events, wait->room, ms, mask_in(quiet, wait->mask));
		if (reported >= 0 || wait->has_mask || errno == EINTR)
			return reported;
		quiet_ends(quiet);
		errno = saved_errno;
	}
	return real.epoll_wait(wait->epfd, wait->events, wait->room, ms);
}

static int wait_as_asked(const struct wait *wait, struct quiet *quiet)
{
	return wait->in_ns ? real.epoll_pwait2(wait->epfd, wait->events, wait->room, wait->timeout,
	                                       mask_in(quiet, wait->mask))
	                   : wait_for_ms(wait, quiet, wait->timeout_ms);
}

static int64_t timeout_ns(const struct wait *wait)
{
	if (!wait->in_ns)
		return wait->timeout_ms < 0 ? FOREVER : wait->timeout_ms * NS_PER_MS;
	return ns_of(wait->timeout);
}

/* An epoll reports everything at once, so what the kernel knows is added to what Fast-Epoll has found. */
static int collected(const struct wait *wait)
{
	int saved_errno = errno, found = 0, more = 0;

	if (settings.fast_epoll && wait->events && wait->room > 0)
		found = fast_epoll_collect(wait->epfd, wait->events, wait->room);
	if (found > 0 && found < wait->room)
		more = real.epoll_wait(wait->epfd, wait->events + found, wait->room - found, 0);
	more = for_application(wait, more, found);
	errno = saved_errno;
	return found + (more > 0 ? more : 0);
}

/*
 * In how many milliseconds to look after the listeners, and to ask for connections that the kernel refuses to register;
 * -1: there is no need.
 */
static int next_look_ms(const struct wait *wait, bool idle, struct quiet *quiet)
{
	int look_in = descriptor(wait->epfd) == WATCHING ? look_after(wait->epfd, idle, quiet) : -1;
	bool asks_again = settings.fast_epoll && fast_epoll_asks_again();

	return asks_again && (look_in < 0 || look_in > ASK_AGAIN_MS) ? ASK_AGAIN_MS : look_in;
}

static bool is_closed(int epfd)
{
	return descriptor(epfd) <= PLAIN && !atomic_load(&is_inert);
}

/*
 * Waits until the timeout or a signal, because another thread has closed the epoll. For that epoll the kernel would go
 * on waiting, and its number may be another epoll's by now.
 */
static int wait_in_vain(int64_t left, const sigset_t *mask)
{
	struct timespec time = { .tv_sec = left / (1000 * NS_PER_MS), .tv_nsec = left % (1000 * NS_PER_MS) };

	return real.ppoll(NULL, 0, left == FOREVER ? NULL : &time, mask);
}

/*
 * Did the thread's last waits take longer than a slice? A signal that comes just when the first slice is over would not
 * end the wait. An idle thread can afford the calls that keep signals off.
 */
THREAD_LOCAL bool idled;

/*
 * Waits in slices, each up to the next look at the listeners. The last slice ends when the application wants. The ring
 * of a bell ends a slice early, and the application does not see it.
 */
static int wait_in_slices(const struct wait *wait, struct quiet *quiet, int slice_ms)
{
	int64_t left = timeout_ns(wait), deadline = left > 0 ? now_ns() + left : 0;
	bool watches = descriptor(wait->epfd) == WATCHING, as_asked = true;

	if (idled)
		quiet_begins(quiet);
	for (;;) {
		bool is_last = left != FOREVER && left <= slice_ms * NS_PER_MS;
		int reported, ready, look_in;

		worker_waits();
		reported = !is_last   ? wait_for_ms(wait, quiet, slice_ms)
		           : as_asked ? wait_as_asked(wait, quiet)
		                      : wait_for_ms(wait, quiet, (int)((left + NS_PER_MS - 1) / NS_PER_MS));
		ready = for_application(wait, reported, 0);
		idled = idled && !(as_asked && ready > 0);
		if (ready || (is_last && !reported))
			return ready;
		left = left_after(left, deadline, reported ? 0 : slice_ms * NS_PER_MS);
		if (watches && is_closed(wait->epfd))
			return wait_in_vain(left, mask_in(quiet, wait->mask));
		ready = collected(wait);
		if (ready)
			return ready;
		look_in = next_look_ms(wait, !reported, quiet);
		slice_ms = look_in < 0 ? slice_ms : look_in;
		as_asked = false;
		idled = true;
	}
}

static int look_and_wait(struct wait *wait)
{
	int saved_errno = errno;
	struct quiet quiet = { 0 };
	int ready = collected(wait), slice_ms = next_look_ms(wait, false, &quiet);

	errno = saved_errno;
	if (ready <= 0)
		ready = slice_ms < 0 ? wait_as_asked(wait, &quiet) : wait_in_slices(wait, &quiet, slice_ms);
	quiet_ends(&quiet);
	return ready;
}

int wait_for_events(struct wait *wait)
{
	int ready;

	pthread_testcancel(); /* as libc's epoll_wait(), and before signals are blocked for a look */
	ready = look_and_wait(wait);

	pulse_wakes();
	return ready;
}
