/* SPDX-License-Identifier: MIT */
/*
 * A pulse is what a worker and the program of balance.h tell each other: some words for each CPU, in memory that the
 * program in the kernel reads and writes too. A worker stores one word when it begins to wait and one when it comes
 * back: no system call, and no lock. If no program is loaded, there is no such memory.
 */
#ifndef PULSE_H
#define PULSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "common.h"
#include "process.h"

/* since_ns of a worker that waits: a connection wakes it. */
#define ASLEEP 0
/* since_ns of a worker that seemed to wait, but did not come for a connection. As a time it is long ago. */
#define AWAY 1
/* queue of a worker that no longer writes here: far below any number of connections. */
#define UNCOUNTED (INT64_MIN / 2)

struct pulse {
	_Atomic uint64_t since_ns; /* when the worker last came back from waiting; or ASLEEP, or AWAY */
	_Atomic uint64_t mixed_ns; /* when the program last gave this CPU's worker a connection of another CPU */
	_Atomic uint64_t given;    /* connections of this CPU that the program gave to other workers, not yet counted */
	_Atomic int64_t queue;     /* how many wait for this CPU's worker, or UNCOUNTED */
} __attribute__((aligned(64)));

/* The numbers in balance.def. */
_Static_assert(offsetof(struct pulse, mixed_ns) == 8 && offsetof(struct pulse, given) == 16 &&
                       offsetof(struct pulse, queue) == 24,
               "balance.def");

/*
 * The pulse of the CPU whose clone the calling thread has adopted. NULL: it has adopted none, or there is no program.
 */
extern __thread struct pulse *pulse INITIAL_EXEC;

/* From now on these are the pulses: one for each CPU that the machine may have. */
void pulses_use(struct pulse *pulses);
/* The calling thread has adopted the clone of this CPU. */
void pulse_begins(int cpu);
void pulse_forget(void);
/* Sets how many connections wait for the calling thread, which must have a pulse. */
void pulse_has_queue(int64_t waiting);
/*
 * The worker of this CPU will write nothing more here. Makes the program give it the connections of its CPU, as the
 * kernel does without a program.
 */
void pulse_falls_silent(int cpu);

/*
 * The calling thread begins to wait for its epoll. Call it also when the thread goes on waiting: a neighbour may have
 * set AWAY just when the thread had come back.
 */
static inline void pulse_sleeps(void)
{
	if (!likely(!pulse))
		atomic_store_explicit(&pulse->since_ns, ASLEEP, memory_order_relaxed);
}

/* How many connections wait for the calling thread; 0: it has no pulse. Another worker may have written any number. */
static inline int64_t pulse_queue(void)
{
	return likely(!pulse) ? 0 : atomic_load_explicit(&pulse->queue, memory_order_relaxed);
}

/* The calling thread has accepted a connection, so that one less waits for it. */
static inline void pulse_accepted(void)
{
	if (!likely(pulse_queue() <= 0))
		atomic_fetch_sub_explicit(&pulse->queue, 1, memory_order_relaxed);
}

/* The calling thread has come back from waiting. */
static inline void pulse_wakes(void)
{
	if (!likely(!pulse) && !seccomp_was_installed())
		atomic_store_explicit(&pulse->since_ns, (uint64_t)now_ns(), memory_order_relaxed);
}

/* Does the worker of this CPU wait, as far as is known? No if there is no program. */
bool pulse_is_asleep(int cpu);
/* Does the worker of this CPU wait, or has a neighbour found that it is away? */
bool pulse_is_still(int cpu);
/* A connection waits for the worker of this CPU, which does not come. If its pulse says ASLEEP, it becomes AWAY. */
void pulse_is_away(int cpu);
/* May a connection of another CPU be among those that wait for this CPU's worker? */
bool pulse_is_mixed(int cpu);
/* Adds the connections that the program gave away to the counter given_away. */
void pulses_count(void);

#endif
