// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "pulse.h"
#include "shared.h"

/* A connection may still come this long after its SYN: the kernel sends the SYN-ACK again for 63 seconds. */
#define MIXED_NS 64000000000LL

__thread struct pulse *pulse INITIAL_EXEC;
static struct pulse *pulses;

void pulses_use(struct pulse *all)
{
	pulses = all;
}

static struct pulse *pulse_of(int cpu)
{
	return pulses && (unsigned int)cpu < (unsigned int)shared_cpus() ? &pulses[cpu] : NULL;
}

void pulse_begins(int cpu)
{
	pulse = pulse_of(cpu);
	if (pulse)
		pulse_has_queue(0);
	pulse_sleeps();
}

void pulse_forget(void)
{
	pulse = NULL;
}

void pulse_has_queue(int64_t waiting)
{
	atomic_store_explicit(&pulse->queue, waiting, memory_order_relaxed);
}

void pulse_falls_silent(int cpu)
{
	struct pulse *its = pulse_of(cpu);

	if (!its)
		return;
	atomic_store(&its->queue, UNCOUNTED);
	atomic_store(&its->since_ns, ASLEEP);
}

bool pulse_is_asleep(int cpu)
{
	const struct pulse *its = pulse_of(cpu);

	return its && atomic_load(&its->since_ns) == ASLEEP;
}

bool pulse_is_still(int cpu)
{
	const struct pulse *its = pulse_of(cpu);

	return its && atomic_load(&its->since_ns) <= AWAY;
}

void pulse_is_away(int cpu)
{
	struct pulse *its = pulse_of(cpu);
	uint64_t asleep = ASLEEP;

	if (its)
		atomic_compare_exchange_strong(&its->since_ns, &asleep, AWAY);
}

bool pulse_is_mixed(int cpu)
{
	const struct pulse *its = pulse_of(cpu);
	uint64_t mixed = its ? atomic_load_explicit(&its->mixed_ns, memory_order_relaxed) : 0;

	return mixed && (int64_t)(atomic_load_explicit(&its->since_ns, memory_order_relaxed) - mixed) < MIXED_NS;
}

void pulses_count(void)
{
	for (int cpu = 0; pulses && cpu < shared_cpus(); cpu++)
		if (atomic_load_explicit(&pulses[cpu].given, memory_order_relaxed))
			atomic_fetch_add(&counters_of(cpu)->given_away, atomic_exchange(&pulses[cpu].given, 0));
}
