// SPDX-License-Identifier: MIT
/*
 * epoll_wait() and its kin. A thread that watches listeners wakes now and then to look after them, without its
 * application noticing; connections that Fast-Epoll put off are asked here.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "fsocket.h"

#define NS_PER_MS 1000000LL
#define FOREVER (-1)

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 * NS_PER_MS + now.tv_nsec;
}

static int wait_as_asked(const struct wait *wait)
{
	if (wait->in_ns)
		return real.epoll_pwait2(wait->epfd, wait->events, wait->room, wait->timeout, wait->mask);
	return wait->has_mask ? real.epoll_pwait(wait->epfd, wait->events, wait->room, wait->timeout_ms, wait->mask) :
				real.epoll_wait(wait->epfd, wait->events, wait->room, wait->timeout_ms);
}

static int wait_for_ms(const struct wait *wait, int ms)
{
	return wait->has_mask ? real.epoll_pwait(wait->epfd, wait->events, wait->room, ms, wait->mask) :
				real.epoll_wait(wait->epfd, wait->events, wait->room, ms);
}

static int64_t timeout_ns(const struct wait *wait)
{
	if (!wait->in_ns)
		return wait->timeout_ms < 0 ? FOREVER : wait->timeout_ms * NS_PER_MS;
	return wait->timeout ? wait->timeout->tv_sec * 1000 * NS_PER_MS + wait->timeout->tv_nsec : FOREVER;
}

/* Slices of the wait, each up to the next look at the listeners; the last one ends when the application wants. */
static int wait_in_slices(struct wait *wait, int slice_ms)
{
	int64_t left = timeout_ns(wait);
	int64_t deadline = left == FOREVER ? 0 : now_ns() + left;
	int ready;

	while (left == FOREVER || left > slice_ms * NS_PER_MS) {
		ready = wait_for_ms(wait, slice_ms);
		if (ready)
			return ready;
		slice_ms = llt_tend();
		if (left != FOREVER)
			left = deadline > now_ns() ? deadline - now_ns() : 0;
		if (slice_ms < 0)
			break;
	}
	if (left == FOREVER)
		return wait_as_asked(wait);
	return wait_for_ms(wait, (int)((left + NS_PER_MS - 1) / NS_PER_MS));
}

int wait_for_events(struct wait *wait)
{
	int saved_errno = errno;
	int slice_ms, ready;

	ready = settings.fast_epoll && wait->events && wait->room > 0 ?
			fast_epoll_collect(wait->epfd, wait->events, wait->room) : 0;
	slice_ms = llt_tend();
	errno = saved_errno;
	if (ready > 0)
		return ready;
	if (slice_ms < 0 || (timeout_ns(wait) != FOREVER && timeout_ns(wait) <= slice_ms * NS_PER_MS))
		return wait_as_asked(wait);
	return wait_in_slices(wait, slice_ms);
}
