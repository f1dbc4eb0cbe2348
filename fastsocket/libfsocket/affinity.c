// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>

#include "affinity.h"
#include "process.h"
#include "real.h"
#include "settings.h"

THREAD_LOCAL bool pinned, was_pinned;
THREAD_LOCAL cpu_set_t own;
THREAD_LOCAL int our_cpu;

bool affinity_may_pin(void)
{
	return settings.pin == PIN_ALWAYS || (settings.pin != PIN_NEVER && !seccomp_at_start());
}

static cpu_set_t only(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return one;
}

static bool pin_to(int cpu)
{
	cpu_set_t one = only(cpu);

	return !sched_setaffinity(0, sizeof(one), &one);
}

bool affinity_pin(int cpu, const cpu_set_t *before)
{
	if (!pin_to(cpu))
		return false;
	own = *before;
	our_cpu = cpu;
	pinned = was_pinned = true;
	return true;
}

void affinity_renew(int cpu, const cpu_set_t *present)
{
	cpu_set_t common;

	CPU_AND(&common, &own, present);
	if (was_pinned && CPU_COUNT(present) > 1 && cpu == our_cpu && CPU_EQUAL(&common, &own))
		pinned = pin_to(our_cpu);
}

/* Does the library's pin still hold? The application or the administrator may have set another affinity since. */
static bool is_pinned_by_us(void)
{
	cpu_set_t present, one = only(our_cpu);

	if (!pinned)
		return false;
	pinned = real.sched_getaffinity(0, sizeof(present), &present) >= 0 && CPU_EQUAL(&present, &one);
	return pinned;
}

bool affinity_lift(void)
{
	int saved_errno = errno;
	bool lifted = likely(!pinned) ? false : is_pinned_by_us() && !sched_setaffinity(0, sizeof(own), &own);

	errno = saved_errno;
	return lifted;
}

void affinity_put_back(bool lifted)
{
	int saved_errno = errno;

	if (!likely(!lifted))
		pinned = pin_to(our_cpu);
	errno = saved_errno;
}

void affinity_after_copying(bool lifted, bool is_child)
{
	if (is_child)
		affinity_forget();
	else
		affinity_put_back(lifted);
}

void affinity_forget(void)
{
	affinity_lift();
	pinned = was_pinned = false;
}

bool affinity_is_hidden(cpu_set_t *ret_own)
{
	if (!is_pinned_by_us())
		return false;
	*ret_own = own;
	return true;
}

bool affinity_of_this_thread(cpu_set_t *ret_cpus)
{
	CPU_ZERO(ret_cpus);
	return real.sched_getaffinity(0, sizeof(*ret_cpus), ret_cpus) >= 0;
}

bool affinity_own(cpu_set_t *ret_cpus)
{
	return affinity_is_hidden(ret_cpus) || affinity_of_this_thread(ret_cpus);
}

int only_cpu(const cpu_set_t *allowed)
{
	for (int cpu = 0; CPU_COUNT(allowed) == 1 && cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed))
			return cpu;
	return -1;
}
