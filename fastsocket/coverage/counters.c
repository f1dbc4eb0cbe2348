// SPDX-License-Identifier: MIT
/*
 * Only in the library that `make coverage` builds. gcc's counters are written when a process exits. Processes of a
 * server end by _exit() or by a signal, may not open a file, or have no descriptor left. So all processes share one set
 * of counters: a file that each process maps when it loads the library. The process that FSOCKET_COVERAGE_ENDS is set
 * for writes them for gcovr.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Whole pages (counters.ld). */
extern char counters_begin[] __attribute__((visibility("hidden")));
extern char counters_end[] __attribute__((visibility("hidden")));

int __close(int fd);

/* open() and __close(): the library does not stand in front of these. */
__attribute__((constructor(101))) static void share_counters(void)
{
	int fd = open(COUNTERS_FILE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	mmap(counters_begin, (size_t)(counters_end - counters_begin), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
	     fd, 0);
	__close(fd);
}

/* The linker (--wrap) calls this in place of gcc's function. */
void __real___gcov_exit(void);
void __wrap___gcov_exit(void);
void __wrap___gcov_exit(void)
{
	if (getenv("FSOCKET_COVERAGE_ENDS"))
		__real___gcov_exit();
}
