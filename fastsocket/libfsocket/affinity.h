/* SPDX-License-Identifier: MIT */
/*
 * Pins a worker thread to a CPU, as the original Fastsocket did. The pin stays with that one thread.
 *
 * The kernel gives a new thread or process the CPU affinity of the thread that made it (sched_setaffinity(2)). So the
 * library lifts the pin while a pinned thread makes a thread or a process, or executes another program: the thread then
 * has the affinity that the application gave it. A pinned thread that asks for its affinity is told that one, too. If
 * the application changes the affinity of a pinned thread, the application's choice stays.
 */
#ifndef AFFINITY_H
#define AFFINITY_H

#include <sched.h>
#include <stdbool.h>

bool affinity_may_pin(void);
/* Pins the calling thread to a CPU. before: the CPUs that it was allowed to run on. False: the kernel refuses. */
bool affinity_pin(int cpu, const cpu_set_t *before);
/*
 * Pins the calling thread again if it has lost its pin: when a CPU goes offline, the kernel gives its threads all other
 * CPUs, and leaves them there. present: the affinity that the thread has now. If it lacks any CPU that the application
 * gave the thread, the application or the administrator has moved the thread, and it stays there.
 */
void affinity_renew(int cpu, const cpu_set_t *present);
/*
 * Between these two calls the calling thread has the affinity that the application gave it. affinity_lift() returns
 * whether it lifted a pin. The caller passes that on to affinity_put_back().
 */
bool affinity_lift(void);
void affinity_put_back(bool lifted);
/* affinity_put_back() after a call that returns in the new process, too, where the pin ends. */
void affinity_after_copying(bool lifted, bool is_child);
/* Ends the pin: a new process starts with the application's affinity. */
void affinity_forget(void);
/* Has the library pinned the calling thread? Then *ret_own is the affinity that the application gave the thread. */
bool affinity_is_hidden(cpu_set_t *ret_own);
/* The CPUs on which the calling thread may run: as the kernel has them, and as the application gave them. */
bool affinity_of_this_thread(cpu_set_t *ret_cpus);
bool affinity_own(cpu_set_t *ret_cpus);
/* The only CPU of a set; -1 if the set has none or several. */
int only_cpu(const cpu_set_t *allowed);

/*
 * Makes a call that creates a thread or a process, with the pin lifted, so that the new one does not inherit the pin.
 */
#define WITH_OWN_AFFINITY(call)                    \
	({                                         \
		bool lifted_ = affinity_lift();    \
		__typeof__(call) result_ = (call); \
                                                   \
		affinity_put_back(lifted_);        \
		result_;                           \
	})

#endif
