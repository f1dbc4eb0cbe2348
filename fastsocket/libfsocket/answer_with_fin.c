// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "answer_with_fin.h"
#include "clock.h"
#include "connections.h"
#include "habits.h"
#include "real.h"
#include "settings.h"
#include "shared.h"
#include "sockopt.h"

/* If a thread takes longer than this between a write and close(), it does something else first. */
#define LATE_NS 1000000
/* No scheduler delays a thread for longer than this: the thread waited, or computed. */
#define TOO_LATE_NS 50000000

/* The flags of send() that change nothing about when data leaves. */
#define PLAIN_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

static struct habit habits[MAX_LISTENERS];

/*
 * How far a thread was at some moment: the time, how long the thread had run, and how often it had waited for anything.
 * written[] holds the moment of the last write to each connection.
 */
struct moment {
	int64_t ns, ran_us;
	long waits;
};
static struct moment written[MAX_FDS];

static struct habit *habit_of(uint64_t state)
{
	return &habits[listener_of(state)];
}

uint64_t answer_wishes(const struct listener *l)
{
	struct habit *habit = &habits[l - listeners];

	if (!settings.answer_with_fin || l->sends_otherwise)
		return 0;
	habit_meets(habit, l->generation);
	if (habit_is_firm(habit))
		return WATCHED | HOLDS;
	return habit_is_sampled(habit) ? WATCHED : 0;
}

/* ---- is a connection closed in the turn of its last write? ---- */

static int64_t us_of(const struct timeval *time)
{
	return time->tv_sec * 1000000 + time->tv_usec;
}

static struct moment ran_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (struct moment){ .ran_us = us_of(&usage.ru_utime) + us_of(&usage.ru_stime), .waits = usage.ru_nvcsw };
}

/*
 * While the library only learns the habit, it holds nothing. So the data has left at once, and its receiver may take
 * the CPU: the time that passes says nothing. What counts is how long the thread ran, and whether it waited.
 */
static struct moment now_of(uint64_t state)
{
	return state & HOLDS ? (struct moment){ .ns = now_ns() } : ran_so_far();
}

static bool is_late(const struct moment *then, const struct moment *now)
{
	return now->ns - then->ns > LATE_NS || (now->ran_us - then->ran_us) * 1000 > LATE_NS ||
	       now->waits != then->waits;
}

static void learn(int fd, uint64_t state)
{
	struct moment now;

	if (!is_owned_here(state)) {
		habit_fails(habit_of(state));
		return;
	}
	now = now_of(state);
	if (now.ns - written[fd].ns > TOO_LATE_NS && state & HOLDS)
		habit_ends(habit_of(state));
	else if (is_late(&written[fd], &now))
		habit_fails(habit_of(state));
	else
		habit_shows(habit_of(state));
}

void answer_escapes(uint64_t state)
{
	if (state & WATCHED)
		habit_ends(habit_of(state));
}

/* ---- writing ---- */

int answer_flag(uint64_t state, int flags)
{
	return state & HOLDS && !(flags & ~PLAIN_FLAGS) && turn_has_room(state) ? MSG_MORE : 0;
}

static void push(int fd)
{
	int saved_errno = errno;

	set_int(fd, IPPROTO_TCP, TCP_CORK, 0);
	errno = saved_errno;
}

/*
 * If a call finds no room for all its data, the kernel sends what there is: tcp_sendmsg_locked() in net/ipv4/tcp.c. The
 * thread then waits, and goes on writing later.
 */
void answer_written(int fd, ssize_t sent, size_t size, bool held)
{
	uint64_t was = connection(fd);

	if (sent <= 0)
		return;
	if (was & WATCHED && (size_t)sent < size) {
		connection_clear(fd, HELD | WRITTEN);
	} else if (was & WATCHED && turn_has_room(was)) {
		written[fd] = now_of(was);
		was = turn_note(fd, held ? HELD | WRITTEN : WRITTEN);
	}
	if (held && !(was & HOLDS)) /* another thread has let go of the connection meanwhile */
		push(fd);
}

/* ---- and then ---- */

void answer_leaves(int fd, uint64_t state)
{
	if (!(state & HELD))
		return;
	push(fd);
	count(&counters_here()->answers_alone);
}

static void answer_ends(int fd, uint64_t state)
{
	if (state & HELD)
		count(&counters_here()->answers_with_fin);
	if (state & WRITTEN)
		learn(fd, state);
}

void answer_closes(int fd, uint64_t state)
{
	int saved_errno = errno;

	answer_ends(fd, state);
	if (state & HELD)
		real.shutdown(fd, SHUT_WR);
	errno = saved_errno;
}

void answer_shuts_down(int fd, uint64_t state)
{
	connection_clear(fd, HELD | WRITTEN | HOLDS | WATCHED);
	turn_leave(fd);
	answer_ends(fd, state);
}

void answer_waits(int fd, uint64_t state)
{
	answer_leaves(fd, state);
	if (!(state & WRITTEN) || !is_owned_here(state))
		return;
	connection_clear(fd, HOLDS | WATCHED);
	habit_fails(habit_of(state));
}
