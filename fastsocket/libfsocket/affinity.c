// SPDX-License-Identifier: MIT
/*
 * Pinning a worker, as the original Fastsocket did, and keeping the pin to that one thread.
 *
 * The kernel gives a new thread or process the CPU affinity of the thread that made it (sched_setaffinity(2)). So a
 * thread that the library pinned gets its own affinity back for as long as it makes one, and when it executes another
 * program. It is also told its own affinity when it asks for it. If the application changes the affinity meanwhile, the
 * application's is kept.
 *
 * A seccomp filter may kill whoever calls sched_setaffinity(), and so may forbid anything else: see affinity_may_pin().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fsocket.h"

THREAD_LOCAL bool pinned, was_pinned;
THREAD_LOCAL cpu_set_t own, ours;

static bool filtered_at_start;
static atomic_bool filtered_later;

/* ---- seccomp -------------------------------------------------------------------------------------------------- */

/* A number in /proc/self/status (proc(5)); -1: it cannot be read. */
static long status_number(const char *name)
{
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *line;

	if (fd >= 0)
		real.close(fd);
	text[length > 0 ? length : 0] = '\0';
	line = strstr(text, name);
	return line ? atol(line + strlen(name)) : -1;
}

/* The loader has opened and read files the same way a moment ago, so this is permitted here. */
void affinity_start(void)
{
	filtered_at_start = status_number("\nSeccomp:") > 0;
}

bool is_only_thread(void)
{
	return status_number("\nThreads:") == 1;
}

bool seccomp_at_start(void)
{
	return filtered_at_start;
}

void affinity_seccomp_installed(void)
{
	atomic_store(&filtered_later, true);
}

/* The application has installed a filter for what it does itself, and the library does more than that. */
bool seccomp_was_installed(void)
{
	return atomic_load_explicit(&filtered_later, memory_order_relaxed);
}

bool affinity_may_pin(void)
{
	return settings.pin == PIN_ALWAYS || (settings.pin != PIN_NEVER && !filtered_at_start);
}

/* ---- the pin -------------------------------------------------------------------------------------------------- */

bool affinity_pin(int cpu)
{
	cpu_set_t before, one;

	if (real.sched_getaffinity(0, sizeof(before), &before) < 0)
		return false;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		return false;
	own = before;
	ours = one;
	pinned = was_pinned = true;
	return true;
}

/* The kernel gives a thread other CPUs when its own goes offline, and does not take them away again. */
void affinity_renew(int cpu, const cpu_set_t *present)
{
	if (was_pinned && CPU_COUNT(present) > 1 && CPU_ISSET(cpu, &ours))
		pinned = !sched_setaffinity(0, sizeof(ours), &ours);
}

/* The pin that the library set is there no longer when the application, or the administrator, has set another one. */
static bool is_pinned_by_us(void)
{
	cpu_set_t present;

	if (!pinned)
		return false;
	pinned = real.sched_getaffinity(0, sizeof(present), &present) >= 0 && CPU_EQUAL(&present, &ours);
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
		pinned = !sched_setaffinity(0, sizeof(ours), &ours);
	errno = saved_errno;
}

/* A child starts with the affinity of the application. */
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

/* CPUs of the calling thread, as the kernel has them. */
bool affinity_of_this_thread(cpu_set_t *ret_cpus)
{
	CPU_ZERO(ret_cpus);
	return real.sched_getaffinity(0, sizeof(*ret_cpus), ret_cpus) >= 0;
}

/* The CPUs that the application has given to the calling thread. */
bool affinity_own(cpu_set_t *ret_cpus)
{
	return affinity_is_hidden(ret_cpus) || affinity_of_this_thread(ret_cpus);
}
