/* SPDX-License-Identifier: MIT */
/* The process itself, and other processes, as /proc tells of them. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * process_start() finds out whether the program was started under a seccomp filter, and seccomp_at_start() tells. Such
 * a filter may kill a process that calls sched_setaffinity().
 */
void process_start(void);
bool seccomp_at_start(void);
/*
 * seccomp_installed() notes that the application has installed a seccomp filter, and seccomp_was_installed() tells.
 * Such a filter is made for what the application does itself, and the library does more than that.
 */
void seccomp_installed(void);
bool seccomp_was_installed(void);

bool is_only_thread(void);
bool process_is_dead(pid_t pid);
/*
 * Returns the process itself, or its nearest ancestor, that has the same real, effective and saved user as this one. 0:
 * there is none among its nearest ancestors.
 */
pid_t process_of_our_user(pid_t pid);

/* A file that a process has open: a name in the directory /proc/PID/fd, and the target of that link. */
struct open_file {
	int directory;
	const char *name, *target;
};
/* Visits the open files of a process until a visit returns true. Returns whether one did. */
bool visit_open_files(pid_t pid, bool (*visit)(const struct open_file *file, void *context), void *context);

#endif
