// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "connections.h"
#include "delayed_ack.h"
#include "habits.h"
#include "settings.h"
#include "shared.h"
#include "sockopt.h"

static struct habit habits[MAX_LISTENERS];

static struct habit *habit_of(uint64_t state)
{
	return &habits[listener_of(state)];
}

bool acks_are_delayed(const struct listener *l)
{
	return atomic_load_explicit(&l->shared->delays_acks, memory_order_relaxed);
}

/*
 * Delays the ACKs of a listener's connections from now on. Each process must know that before the first such connection
 * is made, so the shared memory tells it first. A clone that is adopted later gets the option with all other options of
 * its listener. If the application has turned TCP_QUICKACK off itself, it looks after the ACKs itself: HAProxy does
 * (tcp-smart-accept).
 */
static void delay_acks_of(struct listener *l)
{
	struct held held;

	lock_tables(&held);
	if (!acks_are_delayed(l) && get_int(l->fd, IPPROTO_TCP, TCP_QUICKACK, 0) &&
	    get_int(l->fd, SOL_SOCKET, SO_RCVLOWAT, 1) <= 1) {
		atomic_store(&l->shared->delays_acks, 1);
		for_each_clone(cpu, l)
			set_int(atomic_load(&l->clone[cpu].fd), IPPROTO_TCP, TCP_QUICKACK, 0);
		set_int(l->fd, IPPROTO_TCP, TCP_QUICKACK, 0);
	}
	unlock_tables(&held);
}

uint64_t ack_wishes(struct listener *l)
{
	struct habit *habit = &habits[l - listeners];

	if (!settings.delayed_ack)
		return 0;
	if (likely(acks_are_delayed(l)))
		return DELAYED;
	habit_meets(habit, l->generation);
	if (habit_is_firm(habit)) {
		habit_ends(habit);
		delay_acks_of(l);
	}
	return habit_is_sampled(habit) ? ASKED : 0;
}

void ack_at_once(int fd, uint64_t state)
{
	int saved_errno = errno;

	if (state & DELAYED)
		set_int(fd, IPPROTO_TCP, TCP_QUICKACK, 1);
	errno = saved_errno;
}

/*
 * Has the thread waited since it last read from a connection of which the library learns, and the library has seen no
 * wait?
 */
static bool waits_unseen(void)
{
	THREAD_LOCAL unsigned int seen_then;
	THREAD_LOCAL long waits_then;
	THREAD_LOCAL bool has_read;
	struct rusage usage;
	bool unseen;

	getrusage(RUSAGE_THREAD, &usage);
	unseen = has_read && usage.ru_nvcsw != waits_then && waits_seen == seen_then;
	has_read = true;
	seen_then = waits_seen;
	waits_then = usage.ru_nvcsw;
	return unseen;
}

void ack_read(int fd, uint64_t state)
{
	if (!(state & (DELAYED | ASKED)))
		return;
	if (state & ASKED && waits_unseen())
		habit_ends(habit_of(state));
	else if (turn_has_room(state))
		turn_note(fd, READ);
	else
		ack_at_once(fd, connection_clear(fd, DELAYED));
}

void ack_written(int fd, uint64_t state)
{
	if (!(state & READ))
		return;
	connection_clear(fd, READ);
	if (state & DELAYED)
		count(&counters_here()->acks_with_answer);
	else if (is_owned_here(state))
		habit_shows(habit_of(state));
	else
		habit_fails(habit_of(state));
}

void ack_alone(int fd, uint64_t state)
{
	if (state & DELAYED) {
		ack_at_once(fd, state);
		count(&counters_here()->acks_alone);
	} else {
		habit_fails(habit_of(state));
	}
	connection_clear(fd, DELAYED | ASKED);
}

void ack_waits(int fd, uint64_t state)
{
	if (state & READ && is_owned_here(state))
		ack_alone(fd, state);
}
