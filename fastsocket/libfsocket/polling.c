// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "look.h"
#include "neighbours.h"
#include "poll_bell.h"
#include "polling.h"
#include "queue.h"
#include "readable.h"
#include "real.h"

/* The time between two looks: for a thread without bells, for a thread with bells, and after a bell has rung. */
#define POLL_SLICE_MS 50
#define POLL_SLICE_WITH_BELLS_MS 250
#define POLL_SLICE_AFTER_RING_MS 4
#define MAX_BELLS 8
#define MAX_POLLED_WITH_BELLS 128

static bool needs_looks(int fd)
{
	enum descriptor kind = descriptor(fd);
	struct listener *l;

	if (kind == WATCHING)
		return true;
	l = find_listener(fd);
	return l && l->cloned && !l->blocks;
}

bool polls_a_listener(const struct pollfd *fds, nfds_t n)
{
	if (!shared_is_open() || n > MAX_FDS || !is_readable(fds, n * sizeof(*fds)))
		return false;
	for (nfds_t i = 0; i < n; i++)
		if (!likely(descriptor(fds[i].fd) != LISTENER && descriptor(fds[i].fd) != WATCHING) &&
		    needs_looks(fds[i].fd))
			return true;
	return false;
}

/* Does a clone of this listener hold a connection that the application can accept? */
static bool has_something(int fd)
{
	struct listener *l = find_listener(fd);
	struct held held;
	bool has;

	if (!l)
		return false;
	lock_tables(&held);
	has = find_listener(fd) == l && neighbours_have_something(l);
	unlock_tables(&held);
	return has;
}

static int listeners_ready(struct pollfd *fds, nfds_t n)
{
	int ready = 0;

	for (nfds_t i = 0; i < n; i++) {
		if (fds[i].events & POLLIN && !(fds[i].revents & POLLIN) && has_something(fds[i].fd)) {
			ready += fds[i].revents == 0;
			fds[i].revents |= POLLIN;
		}
	}
	return ready;
}

static int shorter(int one, int other)
{
	return one < other ? one : other;
}

/*
 * How a thread waits that polls or selects listeners: for a moment without bells, then with the bells of the listeners,
 * until one of these rings. Then it begins again.
 */
struct round {
	bool with_bells;
	int bell[MAX_BELLS];
	size_t bells;
};

static void add_bell(struct round *round, int fd)
{
	int bell = round->with_bells && descriptor(fd) == LISTENER && round->bells < MAX_BELLS ? poll_bell(fd) : -1;

	if (bell >= 0 && bell < FD_SETSIZE)
		round->bell[round->bells++] = bell;
}

static int slice_in(const struct round *round)
{
	if (!round->with_bells)
		return POLL_SLICE_AFTER_RING_MS;
	return round->bells ? POLL_SLICE_WITH_BELLS_MS : POLL_SLICE_MS;
}

static struct timespec slice_of(int64_t left, int slice_ms)
{
	int64_t slice = left == FOREVER || left > slice_ms * NS_PER_MS ? slice_ms * NS_PER_MS : left;

	return (struct timespec){ .tv_sec = slice / (1000 * NS_PER_MS), .tv_nsec = slice % (1000 * NS_PER_MS) };
}

/*
 * Looks after the polled epolls that have listeners. This comes before the wait, because it may put a clone into an
 * epoll. Returns the milliseconds until the next look.
 */
static int look_at_polled(const struct pollfd *fds, nfds_t n, bool idle, struct quiet *quiet)
{
	int slice_ms = POLL_SLICE_WITH_BELLS_MS;

	for (nfds_t i = 0; i < n; i++)
		if (descriptor(fds[i].fd) == WATCHING)
			slice_ms = shorter(slice_ms, look_after(fds[i].fd, idle, quiet));
	return slice_ms;
}

/* Waits for the application's descriptors and for the bells. Returns how many of the application's are ready. */
static int poll_with_bells(struct pollfd *fds, nfds_t n, struct round *round, const struct timespec *slice,
                           const sigset_t *mask)
{
	struct pollfd all[MAX_POLLED_WITH_BELLS + MAX_BELLS];
	int saved_errno = errno, ready, rung = 0;

	if (!round->bells)
		return real.ppoll(fds, n, slice, mask);
	memcpy(all, fds, n * sizeof(*fds));
	for (size_t i = 0; i < round->bells; i++)
		all[n + i] = (struct pollfd){ .fd = round->bell[i], .events = POLLIN };
	ready = real.ppoll(all, n + round->bells, slice, mask);
	if (ready < 0 && errno == EINVAL) { /* with the bells there are more than RLIMIT_NOFILE */
		errno = saved_errno;
		return real.ppoll(fds, n, slice, mask);
	}
	for (nfds_t i = 0; i < n; i++)
		fds[i].revents = all[i].revents;
	for (size_t i = 0; ready > 0 && i < round->bells; i++)
		rung += all[n + i].revents != 0;
	round->with_bells = !rung;
	return ready > 0 ? ready - rung : ready;
}

int poll_in_slices(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	int saved_errno = errno;
	int64_t left = ns_of(timeout), deadline = left == FOREVER ? 0 : now_ns() + left;
	struct round round = { 0 };
	struct quiet quiet = { 0 };
	struct timespec slice;
	bool idle = false;
	int ready, look_in;

	do {
		worker_waits();
		look_in = look_at_polled(fds, n, idle, &quiet);
		idle = true;
		round.bells = 0;
		for (nfds_t i = 0; n <= MAX_POLLED_WITH_BELLS && i < n; i++)
			add_bell(&round, fds[i].fd);
		slice = slice_of(left, shorter(look_in, slice_in(&round)));
		errno = saved_errno;
		round.with_bells = true;
		ready = poll_with_bells(fds, n, &round, &slice, mask_in(&quiet, mask));
		left = left_after(left, deadline, ready || !round.with_bells ? 0 : ns_of(&slice));
		if (ready == 0 && left != 0)
			quiet_begins(&quiet);
		if (ready >= 0)
			ready += listeners_ready(fds, n);
	} while (ready == 0 && left != 0);
	quiet_ends(&quiet);
	pulse_wakes();
	return ready;
}

/* How many bytes of a set the kernel reads and writes: core_sys_select(). */
static size_t set_bytes(int n)
{
	return (size_t)(n + NFDBITS - 1) / NFDBITS * (NFDBITS / 8);
}

bool is_set(int n, const fd_set *set)
{
	return is_readable(set, set_bytes(n));
}

/* Visits the selected listeners and the epolls that have listeners. Returns whether a visit returned true. */
static bool for_each_selected(int n, const fd_set *in, bool (*visit)(int fd))
{
	bool any = false;

	for (int fd = 0; fd < n; fd++)
		if (FD_ISSET(fd, in) && (descriptor(fd) == LISTENER || descriptor(fd) == WATCHING))
			any = visit(fd) || any;
	return any;
}

/* Sets longer than libc's are left to the kernel. */
bool selects_a_listener(int n, const fd_set *in)
{
	return shared_is_open() && n > 0 && n <= FD_SETSIZE && is_set(n, in) && for_each_selected(n, in, needs_looks);
}

static int look_at_selected(int n, const fd_set *in, struct quiet *quiet)
{
	int slice_ms = POLL_SLICE_WITH_BELLS_MS;

	for (int fd = 0; fd < n && fd < FD_SETSIZE; fd++)
		if (FD_ISSET(fd, in) && descriptor(fd) == WATCHING)
			slice_ms = shorter(slice_ms, look_after(fd, true, quiet));
	return slice_ms;
}

/*
 * select() with bells, as poll_with_bells() is poll() with bells. Returns how many of the application's descriptors are
 * ready. The application's own sets may be shorter than libc's. The first round of a wait has no bells: there the
 * kernel finds out whether it can write the sets.
 */
static int select_with_bells(int n, fd_set *const given[3], struct round *round, const struct timespec *slice,
                             const sigset_t *mask)
{
	fd_set set[3];
	int ready, rung = 0, end = n;

	if (!round->bells)
		return real.pselect(n, given[0], given[1], given[2], slice, mask);
	memset(set, 0, sizeof(set));
	for (size_t i = 0; i < COUNT(set); i++)
		if (given[i])
			memcpy(&set[i], given[i], set_bytes(n));
	for (size_t i = 0; i < round->bells; i++) {
		FD_SET(round->bell[i], &set[0]);
		end = round->bell[i] >= end ? round->bell[i] + 1 : end;
	}
	ready = real.pselect(end, &set[0], given[1] ? &set[1] : NULL, given[2] ? &set[2] : NULL, slice, mask);
	for (size_t i = 0; ready > 0 && i < round->bells; i++) {
		rung += FD_ISSET(round->bell[i], &set[0]) != 0;
		FD_CLR(round->bell[i], &set[0]);
	}
	for (size_t i = 0; ready >= 0 && i < COUNT(set); i++)
		if (given[i])
			memcpy(given[i], &set[i], set_bytes(n));
	round->with_bells = !rung;
	return ready > 0 ? ready - rung : ready;
}

static int listeners_selected(int n, const fd_set *asked, fd_set *in)
{
	int ready = 0;

	for (int fd = 0; fd < n; fd++)
		if (FD_ISSET(fd, asked) && !FD_ISSET(fd, in) && descriptor(fd) == LISTENER && has_something(fd)) {
			FD_SET(fd, in);
			ready++;
		}
	return ready;
}

int select_in_slices(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                     const sigset_t *mask)
{
	fd_set asked[3], *const given[3] = { in, out, except };
	int64_t left = ns_of(timeout), deadline = left == FOREVER ? 0 : now_ns() + left;
	int saved_errno = errno, ready, look_in;
	struct round round = { 0 };
	struct quiet quiet = { 0 };
	struct timespec slice;

	for (size_t i = 0; i < COUNT(given); i++)
		if (given[i])
			memcpy(&asked[i], given[i], set_bytes(n));
	do {
		worker_waits();
		look_in = look_at_selected(n, &asked[0], &quiet);
		round.bells = 0;
		for (int fd = 0; fd < n; fd++)
			if (FD_ISSET(fd, &asked[0]))
				add_bell(&round, fd);
		slice = slice_of(left, shorter(look_in, slice_in(&round)));
		errno = saved_errno;
		round.with_bells = true;
		ready = select_with_bells(n, given, &round, &slice, mask_in(&quiet, mask));
		left = left_after(left, deadline, ready || !round.with_bells ? 0 : ns_of(&slice));
		if (ready == 0 && left != 0)
			quiet_begins(&quiet);
		if (ready >= 0)
			ready += listeners_selected(n, &asked[0], in);
		for (size_t i = 0; ready == 0 && left != 0 && i < COUNT(given); i++)
			if (given[i])
				memcpy(given[i], &asked[i], set_bytes(n));
	} while (ready == 0 && left != 0);
	quiet_ends(&quiet);
	pulse_wakes();
	return ready;
}
