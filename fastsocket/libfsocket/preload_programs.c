// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload.h"
#include "affinity.h"
#include "readable.h"
#include "shared.h"
#include "successor.h"
#include "turn.h"

#define MAX_ENVIRONMENT 1024

/*
 * How many strings there are. MAX_ENVIRONMENT: there are too many, or they cannot be read. Then the kernel is to refuse
 * them.
 */
static size_t length_of(char *const strings[])
{
	size_t n = 0;

	while (n < MAX_ENVIRONMENT && is_readable(&strings[n], sizeof(strings[n])) && strings[n])
		if (!is_readable(strings[n++], sizeof(uint64_t)))
			return MAX_ENVIRONMENT;
	return n < MAX_ENVIRONMENT && is_readable(&strings[n], sizeof(strings[n])) ? n : MAX_ENVIRONMENT;
}

/*
 * How many pointers the environment takes with the settings that it lacks; 0: it lacks none. Without shared memory no
 * listener has been accelerated.
 */
static size_t length_with_settings(char *const environment[])
{
	size_t length = shared_is_open() ? length_of(environment) : MAX_ENVIRONMENT;
	size_t lacks = length < MAX_ENVIRONMENT ? successor_lacks(environment) : 0;

	return lacks ? length + lacks + 1 : 0;
}

/* Which of the exec functions the application has called, and its arguments. */
struct program {
	enum { BY_PATH, BY_NAME, BY_DESCRIPTOR, AT_DIRECTORY } by;
	const char *path;
	int fd, flags;
	char *const *arguments;
};

static int execute(const struct program *program, char *const environment[])
{
	switch (program->by) {
	case BY_NAME:
		return REAL(execvpe)(program->path, program->arguments, environment);
	case BY_DESCRIPTOR:
		return REAL(fexecve)(program->fd, program->arguments, environment);
	case AT_DIRECTORY:
		return REAL(execveat)(program->fd, program->path, program->arguments, environment, program->flags);
	default:
		return REAL(execve)(program->path, program->arguments, environment);
	}
}

/*
 * Executes the program, and adds to its environment what it lacks (successor.h). Allocates nothing, because programs
 * call exec functions after fork().
 */
static int execute_with_settings(const struct program *program, char *const environment[])
{
	size_t extended_length = length_with_settings(environment);

	if (extended_length) {
		char *extended[extended_length];

		successor_extend(extended, environment);
		return execute(program, extended);
	}
	return execute(program, environment);
}

static int become(const struct program *program, char *const environment[])
{
	bool lifted;
	int result;

	if (!settings.enabled)
		return execute(program, environment);
	turn_leaves_all_alone();
	lifted = affinity_lift();
	successor_comes(true);
	result = execute_with_settings(program, environment);
	successor_comes(false);
	affinity_put_back(lifted);
	return result;
}

INTERPOSED int execve(const char *path, char *const arguments[], char *const environment[])
{
	return become(&(struct program){ .by = BY_PATH, .path = path, .arguments = arguments }, environment);
}

INTERPOSED int execv(const char *path, char *const arguments[])
{
	return become(&(struct program){ .by = BY_PATH, .path = path, .arguments = arguments }, environ);
}

INTERPOSED int execvpe(const char *name, char *const arguments[], char *const environment[])
{
	return become(&(struct program){ .by = BY_NAME, .path = name, .arguments = arguments }, environment);
}

INTERPOSED int execvp(const char *name, char *const arguments[])
{
	return become(&(struct program){ .by = BY_NAME, .path = name, .arguments = arguments }, environ);
}

INTERPOSED int fexecve(int fd, char *const arguments[], char *const environment[])
{
	return become(&(struct program){ .by = BY_DESCRIPTOR, .fd = fd, .arguments = arguments }, environment);
}

INTERPOSED int execveat(int directory, const char *path, char *const arguments[], char *const environment[], int flags)
{
	if (!REAL(execveat)) { /* glibc before 2.34 */
		errno = ENOSYS;
		return -1;
	}
	return become(
		&(struct program){
			.by = AT_DIRECTORY, .fd = directory, .path = path, .flags = flags, .arguments = arguments },
		environment);
}

static size_t count_arguments(va_list given)
{
	size_t n = 1;
	va_list arguments;

	va_copy(arguments, given);
	while (va_arg(arguments, char *))
		n++;
	va_end(arguments);
	return n;
}

/* execl(), execlp(), execle(): the arguments one by one, and after the last one, for execle(), an environment. */
#define EXECUTE_LIST(kind, has_environment)                                                                  \
	do {                                                                                                 \
		va_list given;                                                                               \
		size_t n;                                                                                    \
                                                                                                             \
		va_start(given, first);                                                                      \
		n = count_arguments(given);                                                                  \
		{                                                                                            \
			char *arguments[n + 1], *const *environment = environ;                               \
                                                                                                             \
			arguments[0] = (char *)first;                                                        \
			for (size_t i = 1; i <= n; i++)                                                      \
				arguments[i] = va_arg(given, char *);                                        \
			if (has_environment)                                                                 \
				environment = va_arg(given, char *const *);                                  \
			va_end(given);                                                                       \
			return become(&(struct program){ .by = kind, .path = path, .arguments = arguments }, \
			              environment);                                                          \
		}                                                                                            \
	} while (0)

INTERPOSED int execl(const char *path, const char *first, ...)
{
	EXECUTE_LIST(BY_PATH, false);
}

INTERPOSED int execlp(const char *path, const char *first, ...)
{
	EXECUTE_LIST(BY_NAME, false);
}

INTERPOSED int execle(const char *path, const char *first, ...)
{
	EXECUTE_LIST(BY_PATH, true);
}

typedef int spawning(pid_t *restrict, const char *restrict, const posix_spawn_file_actions_t *,
                     const posix_spawnattr_t *restrict, char *const[restrict], char *const[restrict]);

static int spawn_with_settings(spawning *call, pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                               const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
	size_t extended_length = length_with_settings(environment);
	int result;

	turn_leaves_all_alone();
	successor_is_spawned(true);
	if (extended_length) {
		char *extended[extended_length];

		successor_extend(extended, environment);
		result = WITH_OWN_AFFINITY(call(pid, path, actions, attributes, arguments, extended));
	} else {
		result = WITH_OWN_AFFINITY(call(pid, path, actions, attributes, arguments, environment));
	}
	successor_is_spawned(false);
	return result;
}

INTERPOSED int posix_spawn(pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *restrict attributes, char *const arguments[restrict],
                           char *const environment[restrict])
{
	return spawn_with_settings(REAL(posix_spawn), pid, path, actions, attributes, arguments, environment);
}

INTERPOSED int posix_spawnp(pid_t *restrict pid, const char *restrict name, const posix_spawn_file_actions_t *actions,
                            const posix_spawnattr_t *restrict attributes, char *const arguments[restrict],
                            char *const environment[restrict])
{
	return spawn_with_settings(REAL(posix_spawnp), pid, name, actions, attributes, arguments, environment);
}

INTERPOSED int system(const char *command)
{
	turn_leaves_all_alone();
	return WITH_OWN_AFFINITY(REAL(system)(command));
}

INTERPOSED FILE *popen(const char *command, const char *mode)
{
	turn_leaves_all_alone();
	return WITH_OWN_AFFINITY(REAL(popen)(command, mode));
}

/* ---- processes that share the descriptors, but not their table ---- */

/* _Fork() runs no handlers of fork(). fork() itself needs no function here, because its handlers see it: fork.c. */
INTERPOSED pid_t _Fork(void)
{
	bool lifted;
	pid_t child;

	turn_leaves_all_alone();
	lifted = affinity_lift();
	child = REAL(_Fork)();
	affinity_after_copying(lifted, child == 0);
	return child;
}

/* The child runs on a stack of its own, so it does not come back here. */
INTERPOSED int clone(int (*run)(void *), void *stack, int flags, void *argument, ...)
{
	void *more[3]; /* where to write the child's number, its thread-local storage, and where to clear the number */
	va_list given;

	va_start(given, argument);
	for (size_t i = 0; i < COUNT(more); i++)
		more[i] = va_arg(given, void *);
	va_end(given);
	turn_leaves_all_alone();
	return WITH_OWN_AFFINITY(REAL(clone)(run, stack, flags, argument, more[0], more[1], more[2]));
}

/*
 * The child of vfork() returns from vfork() first, on its parent's stack. So our vfork() must have left the stack by
 * then: it jumps to libc's, and does not call it.
 */
void *vfork_comes(void) __attribute__((visibility("hidden")));
void *vfork_comes(void)
{
	void *address;

	turn_leaves_all_alone();
	memcpy(&address, &REAL(vfork), sizeof(address));
	return address;
}

#if defined(__x86_64__)
#define CALL_AND_JUMP "endbr64\n sub $8, %rsp\n call vfork_comes\n add $8, %rsp\n jmp *%rax\n"
#elif defined(__aarch64__)
#define CALL_AND_JUMP \
	"hint #34\n stp x29, x30, [sp, #-16]!\n bl vfork_comes\n ldp x29, x30, [sp], #16\n mov x16, x0\n br x16\n"
#endif
#ifdef CALL_AND_JUMP
__asm__(".text\n .globl vfork\n .type vfork, %function\n vfork:\n" CALL_AND_JUMP ".size vfork, .-vfork\n");
#endif

/* For _exit() only: exit() runs a destructor, in preload.c. */
INTERPOSED void _exit(int status)
{
	turn_ends();
	REAL(_exit)(status);
	__builtin_unreachable();
}
