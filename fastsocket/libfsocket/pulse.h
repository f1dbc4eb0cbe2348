/* SPDX-License-Identifier: MIT */
/*
 * What workers and the program of balance.h tell each other: some words for each CPU, in memory that the kernel's
 * program reads, too. A worker stores one word when it begins to wait and one when it comes back: no system call, and
 * no lock. Where there is no program, there is no such memory.
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

/* A worker that waits: a connection wakes it. */
#define ASLEEP 0
/* A worker that seemed to wait, and did not come. As a time it is long ago. */
#define AWAY 1
/* The queue of a worker that no longer says anything: far below any that is counted. */
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

/* Of the CPU whose clone the calling thread has adopted; NULL: of none. */
extern __thread struct pulse *pulse INITIAL_EXEC;

/* pulses: one for each CPU that the machine may have. */
void pulses_use(struct pulse *pulses);
/* The calling thread has adopted the clone of this CPU. */
void pulse_begins(int cpu);
void pulse_forget(void);
/* So many connections wait for the calling thread. */
void pulse_has_queue(int64_t waiting);
/* The worker of this CPU will say nothing more: the program is to give it the connections of its CPU, as the kernel does. */
void pulse_falls_silent(int cpu);

/*
 * The calling thread begins to wait for its epoll, or goes on waiting: a neighbour may have found it to be away just when
 * it had come back.
 */
static inline void pulse_sleeps(void)
{
	if (!likely(!pulse))
		atomic_store_explicit(&pulse->since_ns, ASLEEP, memory_order_relaxed);
}

/* Another worker may have written any number. */
static inline int64_t pulse_queue(void)
{
	return likely(!pulse) ? 0 : atomic_load_explicit(&pulse->queue, memory_order_relaxed);
}

/* It has accepted a connection. */
static inline void pulse_accepted(void)
{
	if (!likely(pulse_queue() <= 0))
		atomic_fetch_sub_explicit(&pulse->queue, 1, memory_order_relaxed);
}

/* It has come back. */
static inline void pulse_wakes(void)
{
	if (!likely(!pulse) && !seccomp_was_installed())
		atomic_store_explicit(&pulse->since_ns, (uint64_t)now_ns(), memory_order_relaxed);
}

/* Has the worker of this CPU begun to wait, as far as is known? False: there is no program, too. */
bool pulse_is_asleep(int cpu);
/* The same, or has it been found to be away? */
bool pulse_is_still(int cpu);
/* A connection waits for the worker of this CPU, which does not come. If that worker claims to wait, it does not. */
void pulse_is_away(int cpu);
/* May a connection of another CPU be among those that wait for this CPU's worker? */
bool pulse_is_mixed(int cpu);
/* Count what the program gave away. */
void pulses_count(void);

#endif
