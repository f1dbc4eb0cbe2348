/* SPDX-License-Identifier: MIT */
/*
 * Pinning a worker, as the original Fastsocket did, and keeping the pin to that one thread.
 *
 * The kernel gives a new thread or process the CPU affinity of the thread that made it (sched_setaffinity(2)). So a
 * pinned thread gets its own affinity back while it makes a thread or a process, and while it executes another program.
 * A thread that asks for its affinity is told its own too. If the application changes the affinity meanwhile, the
 * application's stays.
 */
#ifndef AFFINITY_H
#define AFFINITY_H

#include <sched.h>
#include <stdbool.h>

bool affinity_may_pin(void);
/* Pin the calling thread, which may run on the CPUs in before. */
bool affinity_pin(int cpu, const cpu_set_t *before);
/* The kernel gives a thread other CPUs when its own goes offline, and leaves it there: pin the thread again. */
void affinity_renew(int cpu, const cpu_set_t *present);
/* Between these two the calling thread has its own affinity. */
bool affinity_lift(void);
void affinity_put_back(bool lifted);
/* A new process starts with the application's affinity. */
void affinity_forget(void);
/* Has the library pinned the calling thread? Then *ret_own is what the application gave the thread. */
bool affinity_is_hidden(cpu_set_t *ret_own);
/* CPUs of the calling thread: as the kernel has them, and as the application gave them. */
bool affinity_of_this_thread(cpu_set_t *ret_cpus);
bool affinity_own(cpu_set_t *ret_cpus);
/* The CPU of a set that has just one, or -1. */
int only_cpu(const cpu_set_t *allowed);

/* For a call that makes a thread or a process. */
#define WITH_OWN_AFFINITY(call)                    \
	({                                         \
		bool lifted_ = affinity_lift();    \
		__typeof__(call) result_ = (call); \
                                                   \
		affinity_put_back(lifted_);        \
		result_;                           \
	})

#endif
