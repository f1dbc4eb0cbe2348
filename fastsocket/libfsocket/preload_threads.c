// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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

/* Creates a thread for a thread that has a descriptor table of its own. The new thread shares that table. */
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

/*
 * The application has installed a seccomp filter. From now on the library makes only calls that the application makes.
 */
static void has_own_filter(void)
{
	seccomp_installed();
	atomic_store(&is_inert, !adopters_fall_silent());
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

/* Every argument of a system call fits into each of these. */
union argument {
	long word;
	void *pointer;
};
#define INT(i) ((int)argument[i].word)
#define UNSIGNED(i) ((unsigned int)argument[i].word)
#define POINTER(i) (argument[i].pointer)

/*
 * Makes a system call by its libc function, because the library has to know what the call does to a listener, a clone
 * or an epoll. False: the library has nothing to do with this call, and has not made it.
 */
static bool call_by_name(long number, const union argument argument[], long *ret_result)
{
	switch (number) {
#define CALL_BY_NAME(name, ...)                  \
	case SYS_##name:                         \
		*ret_result = name(__VA_ARGS__); \
		return true
		CALL_BY_NAME(accept, INT(0), POINTER(1), POINTER(2));
		CALL_BY_NAME(accept4, INT(0), POINTER(1), POINTER(2), INT(3));
		CALL_BY_NAME(close, INT(0));
		CALL_BY_NAME(connect, INT(0), POINTER(1), UNSIGNED(2));
		CALL_BY_NAME(dup, INT(0));
		CALL_BY_NAME(dup3, INT(0), INT(1), INT(2));
		CALL_BY_NAME(epoll_ctl, INT(0), INT(1), INT(2), POINTER(3));
		CALL_BY_NAME(fcntl, INT(0), INT(1), POINTER(2));
		CALL_BY_NAME(prctl, INT(0), argument[1].word, argument[2].word, argument[3].word, argument[4].word);
		CALL_BY_NAME(setsockopt, INT(0), INT(1), INT(2), POINTER(3), UNSIGNED(4));
		CALL_BY_NAME(shutdown, INT(0), INT(1));
		CALL_BY_NAME(unshare, INT(0));
#ifdef SYS_dup2 /* not on 64-bit ARM */
		CALL_BY_NAME(dup2, INT(0), INT(1));
#endif
#undef CALL_BY_NAME
	case SYS_close_range:
		if (!REAL(close_range)) /* glibc before 2.34 */
			return false;
		*ret_result = close_range(UNSIGNED(0), UNSIGNED(1), INT(2));
		return true;
	default:
		return false;
	}
}

static bool makes_a_process(long number)
{
	switch (number) {
	case SYS_clone:
	case SYS_clone3:
#ifdef SYS_fork /* not on 64-bit ARM */
	case SYS_fork:
	case SYS_vfork:
#endif
		return true;
	default:
		return false;
	}
}

/* libc has no call of its own for seccomp(2): libseccomp installs its filters by syscall(2). */
INTERPOSED long syscall(long number, ...)
{
	union argument argument[6];
	va_list arguments;
	bool ours, copies, lifted;
	long result;

	va_start(arguments, number);
	for (size_t i = 0; i < COUNT(argument); i++)
		argument[i].word = va_arg(arguments, long);
	va_end(arguments);
	turn_ends();
	if (call_by_name(number, argument, &result))
		return result;
	ours = !likely(number != SYS_seccomp) && argument[0].word != SECCOMP_GET_ACTION_AVAIL && tables_are_ours();
	copies = makes_a_process(number);
	if (!likely(!ours && !copies))
		turn_leaves_all_alone();
	lifted = copies && affinity_lift();
	result = REAL(syscall)(number, argument[0].word, argument[1].word, argument[2].word, argument[3].word,
	                       argument[4].word, argument[5].word);
	if (!likely(!copies))
		affinity_after_copying(lifted, result == 0);
	if (!likely(!ours) && result == 0)
		has_own_filter();
	return result;
}
