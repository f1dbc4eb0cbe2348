// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "real.h"

/* process_of_our_user() looks at this many processes, from a worker up to its master. */
#define MAX_GENERATIONS 3

static bool filtered_at_start;
static atomic_bool filtered_later;

/* ---- the process itself ---- */

/* A number in /proc/self/status (proc(5)); -1: the file cannot be read. */
static long status_number(const char *name)
{
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : real.read(fd, text, sizeof(text) - 1);
	const char *line;

	if (fd >= 0)
		real.close(fd);
	text[length > 0 ? length : 0] = '\0';
	line = strstr(text, name);
	return line ? atol(line + strlen(name)) : -1;
}

/* A seccomp filter allows these calls: the loader has just opened and read files in the same way. */
void process_start(void)
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

void seccomp_installed(void)
{
	atomic_store(&filtered_later, true);
}

bool seccomp_was_installed(void)
{
	return atomic_load_explicit(&filtered_later, memory_order_relaxed);
}

/* ---- other processes ---- */

bool process_is_dead(pid_t pid)
{
	return kill(pid, 0) && errno == ESRCH;
}

struct process {
	unsigned int parent, uid[3]; /* real, effective, saved */
};

/* proc(5), /proc/PID/status: the parent comes before the users. */
static bool look_up(pid_t pid, struct process *ret_process)
{
	char path[64], line[128];
	bool found = false;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	while (status && !found && fgets(line, sizeof(line), status)) {
		sscanf(line, "PPid: %u", &ret_process->parent);
		found = sscanf(line, "Uid: %u %u %u", &ret_process->uid[0], &ret_process->uid[1],
		               &ret_process->uid[2]) == 3;
	}
	if (status)
		fclose(status);
	return found;
}

/*
 * A process of another user may have written its number on the listener, so nothing is taken from such a process. But
 * it may be a worker that has dropped its privileges; then its master, an ancestor, has the same clones.
 */
pid_t process_of_our_user(pid_t pid)
{
	uid_t own[3];

	getresuid(&own[0], &own[1], &own[2]);
	for (int generation = 0; pid > 1 && generation < MAX_GENERATIONS; generation++) {
		struct process process = { 0 };

		if (!look_up(pid, &process))
			return 0;
		if (process.uid[0] == own[0] && process.uid[1] == own[1] && process.uid[2] == own[2])
			return pid;
		pid = (pid_t)process.parent;
	}
	return 0;
}

bool visit_open_files(pid_t pid, bool (*visit)(const struct open_file *file, void *context), void *context)
{
	char path[64], target[64];
	const struct dirent *entry;
	DIR *directory;
	bool done = false;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	directory = opendir(path);
	while (directory && !done && (entry = readdir(directory))) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.StdCLibraryFunctions): an open directory has a descriptor */
		ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);

		target[length > 0 ? length : 0] = '\0';
		done = visit(&(struct open_file){ dirfd(directory), entry->d_name, target }, context);
	}
	if (directory)
		closedir(directory);
	return done;
}
