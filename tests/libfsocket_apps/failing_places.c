// SPDX-License-Identifier: MIT
/*
 * Lets the library's own calls of libc fail, one place in its code after the other. Built twice: with ABOVE it is
 * preloaded before libfsocket.so and notes what the application asks for; without, it stands behind libfsocket.so, gets
 * all that the library calls, and lets fail what is not the application's own call on its way to the kernel.
 *
 * CALLS is a list of CALL(name). FAIL says what fails, "NAME@OFFSET HOW ERRNO", where OFFSET is that of the place in
 * libfsocket.so, and HOW is always, once (in each process), after (the call takes effect and fails all the same), or
 * short (half of what was asked for is done).
 * RECORD names a file that gets a line NAME@OFFSET for each place that is reached.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct asked {
	const char *name;
	long first;
};
#define ARGUMENTS long a, long b, long c, long d, long e, long f, long g
#define ARE_PASSED_ON a, b, c, d, e, f, g
/* All arguments of libc's calls are integers and pointers, which travel alike in registers: on x86-64 and aarch64. */
#define WRAP(name)                                     \
	long wrapped_##name(ARGUMENTS) __asm__(#name); \
	__attribute__((visibility("default"))) long wrapped_##name(ARGUMENTS)

#ifdef ABOVE

extern __thread struct asked asked;

#define CALL(name)                                      \
	WRAP(name)                                      \
	{                                               \
		static long (*next)(ARGUMENTS);         \
                                                        \
		if (!next)                              \
			next = dlsym(RTLD_NEXT, #name); \
		asked = (struct asked){ #name, a };     \
		return next(ARE_PASSED_ON);             \
	}

#else

#define MAX_PLACES 1024
enum how { NOT, ALWAYS, ONCE, AFTER, SHORT };

__attribute__((visibility("default"))) __thread struct asked asked;
static unsigned long begin, end, reached[MAX_PLACES], fails_at;
static const char *record;
static char fails_name[64];
static int error;
static const char *const hows[] = { "not", "always", "once", "after", "short" };
static enum how how;

static int find_library(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size, (void)unused;
	for (int i = 0; strstr(info->dlpi_name, "/libfsocket.so") && i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD) {
			begin = info->dlpi_addr;
			end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
		}
	return 0;
}

__attribute__((constructor)) static void start(void)
{
	const char *fails = getenv("FAIL");
	char word[16];

	dl_iterate_phdr(find_library, NULL);
	if (getenv("RECORD"))
		record = strdup(getenv("RECORD")); /* servers write their titles over the environment */
	if (!fails || sscanf(fails, "%63[^@]@%lx %15s %d", fails_name, &fails_at, word, &error) != 4)
		return;
	for (how = ALWAYS; how < SHORT && strcmp(word, hows[how]) != 0; how++)
		;
}

static void note(const char *name, unsigned long place)
{
	char line[96];
	size_t i = 0;
	long fd;

	while (i < MAX_PLACES - 1 && reached[i] && reached[i] != place)
		i++;
	if (reached[i] == place)
		return;
	reached[i] = place;
	fd = syscall(SYS_openat, AT_FDCWD, record, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	syscall(SYS_write, fd, line, snprintf(line, sizeof(line), "%s@%lx\n", name, place));
	syscall(SYS_close, fd);
}

/* The call that the application made, on its way to the kernel. */
static bool is_the_application_s(const char *name, long first)
{
	return asked.name && strcmp(asked.name, name) == 0 && asked.first == first;
}

static enum how fate(const char *name, long first, const void *caller)
{
	unsigned long place = (unsigned long)caller;
	int saved_errno = errno;
	enum how result = NOT;

	if (place >= begin && place < end && !is_the_application_s(name, first)) {
		if (record)
			note(name, place - begin);
		if (how && place - begin == fails_at && strcmp(name, fails_name) == 0)
			result = how;
	}
	if (result == ONCE)
		how = NOT;
	errno = saved_errno;
	return result;
}

static long failure(const char *name)
{
	static const char *const give_pointers[] = { "opendir", "fopen", "readdir", "fgets", "popen" };

	errno = error;
	for (size_t i = 0; i < sizeof(give_pointers) / sizeof(*give_pointers); i++)
		if (strcmp(name, give_pointers[i]) == 0)
			return 0;
	return -1;
}

#define CALL(name)                                                           \
	WRAP(name)                                                           \
	{                                                                    \
		static long (*next)(ARGUMENTS);                              \
		enum how its = fate(#name, a, __builtin_return_address(0));  \
		long result = -1;                                            \
                                                                             \
		if (!next)                                                   \
			next = dlsym(RTLD_NEXT, #name);                      \
		if (its != ALWAYS && its != ONCE)                            \
			result = next(ARE_PASSED_ON);                        \
		if (its == SHORT && result > 1)                              \
			result /= 2;                                         \
		return its == NOT || its == SHORT ? result : failure(#name); \
	}

#endif

CALLS
