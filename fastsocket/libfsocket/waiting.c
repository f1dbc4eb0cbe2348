// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>

#include "bell.h"
#include "clock.h"
#include "fast_epoll.h"
#include "look.h"
#include "pulse.h"
#include "real.h"
#include "settings.h"
#include "waiting.h"

/* Of the events that were reported after the first ones: those that are the application's. */
static int for_application(const struct wait *wait, int reported, int first)
{
	struct epoll_event *events = wait->events + first;

	return reported > 0 ? each_once(events, bells_heard(wait->epfd, events, reported)) : reported;
}

static int wait_for_ms(const struct wait *wait, const struct quiet *quiet, int ms)
{
	return wait->has_mask || quiet->is_begun
		       ? real.epoll_pwait(wait->epfd, wait->events, wait->room, ms, mask_in(quiet, wait->mask))
		       : real.epoll_wait(wait->epfd, wait->events, wait->room, ms);
}

static int wait_as_asked(const struct wait *wait, const struct quiet *quiet)
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

static bool is_closed(int epfd)
{
	return descriptor(epfd) <= PLAIN && !atomic_load(&is_inert);
}

/* Another thread has closed the epoll: the kernel would go on waiting, and the number may be another epoll's by now. */
static int wait_in_vain(int64_t left, const sigset_t *mask)
{
	struct timespec time = { .tv_sec = left / (1000 * NS_PER_MS), .tv_nsec = left % (1000 * NS_PER_MS) };

	return real.ppoll(NULL, 0, left == FOREVER ? NULL : &time, mask);
}

/*
 * The thread's last waits took longer than a slice. A signal that comes just when the first slice is over would not end
 * the wait; an idle thread can afford the calls that keep it off.
 */
THREAD_LOCAL bool idled;

/*
 * Waits in slices, each up to the next look at the listeners. The last slice ends when the application wants. The ring
 * of a bell ends a slice early, and the application does not see it.
 */
static int wait_in_slices(const struct wait *wait, struct quiet *quiet, int slice_ms)
{
	int64_t left = timeout_ns(wait), deadline = left > 0 ? now_ns() + left : 0;
	bool as_asked = true;

	if (idled)
		quiet_begins(quiet);
	for (;;) {
		bool is_last = left != FOREVER && left <= slice_ms * NS_PER_MS;
		int reported, ready;

		pulse_sleeps();
		reported = !is_last   ? wait_for_ms(wait, quiet, slice_ms)
		           : as_asked ? wait_as_asked(wait, quiet)
		                      : wait_for_ms(wait, quiet, (int)((left + NS_PER_MS - 1) / NS_PER_MS));
		ready = for_application(wait, reported, 0);
		idled = idled && !(as_asked && ready > 0);
		if (ready || (is_last && !reported))
			return ready;
		left = left_after(left, deadline, reported ? 0 : slice_ms * NS_PER_MS);
		if (is_closed(wait->epfd))
			return wait_in_vain(left, mask_in(quiet, wait->mask));
		slice_ms = look_after(wait->epfd, !reported, quiet);
		as_asked = false;
		idled = true;
	}
}

/* An epoll reports everything at once, so what the kernel knows is added to what Fast-Epoll has found. */
static int what_else_is_ready(const struct wait *wait, int found)
{
	int saved_errno = errno;
	int more = found < wait->room ? real.epoll_wait(wait->epfd, wait->events + found, wait->room - found, 0) : 0;

	errno = saved_errno;
	return more > 0 ? for_application(wait, more, found) : 0;
}

static int look_and_wait(struct wait *wait)
{
	int saved_errno = errno;
	struct quiet quiet = { 0 };
	int slice_ms, ready;

	ready = settings.fast_epoll && wait->events && wait->room > 0
	                ? fast_epoll_collect(wait->epfd, wait->events, wait->room)
	                : 0;
	slice_ms = descriptor(wait->epfd) == WATCHING ? look_after(wait->epfd, false, &quiet) : -1;
	errno = saved_errno;
	if (ready > 0)
		ready += what_else_is_ready(wait, ready);
	else
		ready = slice_ms < 0 ? wait_as_asked(wait, &quiet) : wait_in_slices(wait, &quiet, slice_ms);
	quiet_ends(&quiet);
	return ready;
}

int wait_for_events(struct wait *wait)
{
	int ready = look_and_wait(wait);

	pulse_wakes();
	return ready;
}
