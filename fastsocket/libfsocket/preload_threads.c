// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"
#include "affinity.h"
#include "process.h"
#include "pulse.h"
#include "tables.h"
#include "turn.h"
#include "watches.h"

struct new_thread {
	void *(*run)(void *);
	void *argument;
};

static void *run_with_own_table(void *argument)
{
	struct new_thread new = *(struct new_thread *)argument;

	free(argument);
	has_own_table = true;
	return new.run(new.argument);
}

/* A thread shares the descriptor table of the thread that creates it. */
static int create_with_own_table(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                                 void *argument)
{
	struct new_thread *new = malloc(sizeof(*new));
	int result;

	if (!new)
		return EAGAIN;
	*new = (struct new_thread){ run, argument };
	result = REAL(pthread_create)(thread, attributes, run_with_own_table, new);
	if (result)
		free(new);
	return result;
}

INTERPOSED int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                              void *(*run)(void *), void *restrict argument)
{
	return WITH_OWN_AFFINITY(has_own_table ? create_with_own_table(thread, attributes, run, argument)
	                                       : REAL(pthread_create)(thread, attributes, run, argument));
}

static void hide_pin(size_t size, cpu_set_t *cpus)
{
	cpu_set_t own;

	if (!affinity_is_hidden(&own))
		return;
	memset(cpus, 0, size);
	memcpy(cpus, &own, size < sizeof(own) ? size : sizeof(own));
}

/* The application is told which CPUs it gave the thread, not where the library pinned it. */
INTERPOSED int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus)
{
	int result;

	result = REAL(sched_getaffinity)(pid, size, cpus);
	if (result >= 0 && (pid == 0 || pid == gettid()))
		hide_pin(size, cpus);
	return result;
}

INTERPOSED int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *cpus)
{
	int result;

	result = REAL(pthread_getaffinity_np)(thread, size, cpus);
	if (result == 0 && pthread_equal(thread, pthread_self()))
		hide_pin(size, cpus);
	return result;
}

/* From now on the library does only what the application does. */
static void has_own_filter(void)
{
	seccomp_installed();
	pulse_sleeps(); /* from now on the thread does not say that it comes back */
	atomic_store(&is_inert, !any_adopted_here());
}

INTERPOSED int prctl(int option, ...)
{
	unsigned long argument[4];
	va_list arguments;
	bool ours;
	int result;

	va_start(arguments, option);
	for (size_t i = 0; i < COUNT(argument); i++)
		argument[i] = va_arg(arguments, unsigned long);
	va_end(arguments);
	ours = option == PR_SET_SECCOMP && tables_are_ours();
	if (ours)
		turn_leaves_all_alone();
	result = REAL(prctl)(option, argument[0], argument[1], argument[2], argument[3]);
	if (result == 0 && ours)
		has_own_filter();
	return result;
}

/* libc has no call of its own for seccomp(2): libseccomp installs its filters by syscall(2). */
INTERPOSED long syscall(long number, ...)
{
	long argument[6], result;
	va_list arguments;
	bool ours;

	va_start(arguments, number);
	for (size_t i = 0; i < COUNT(argument); i++)
		argument[i] = va_arg(arguments, long);
	va_end(arguments);
	turn_ends();
	ours = !likely(number != SYS_seccomp) && argument[0] != SECCOMP_GET_ACTION_AVAIL && tables_are_ours();
	if (!likely(!ours))
		turn_leaves_all_alone();
	result = REAL(syscall)(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
	if (!likely(!ours) && result == 0)
		has_own_filter();
	return result;
}
