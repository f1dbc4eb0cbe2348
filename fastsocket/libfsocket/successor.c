// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "clone.h"
#include "mark.h"
#include "process.h"
#include "real.h"
#include "settings.h"
#include "successor.h"
#include "withdrawal.h"

/* By any of its descriptors: programs that pass a listener on often duplicate it to a number of their choice. */
static bool goes_along(const struct listener *l)
{
	uint32_t end = l->generation && (l->cloned || l->sharded) ? atomic_load(&descriptors_end) : 0;

	for (uint32_t fd = 0; fd < end; fd++) {
		int flags = find_listener((int)fd) == l ? real.fcntl((int)fd, F_GETFD) : -1;

		if (flags >= 0 && !(flags & FD_CLOEXEC))
			return true;
	}
	return false;
}

/* Another living process that has a worker at one of the clones; 0: there is none. */
static pid_t process_of_an_adopter(const struct listener *l)
{
	for (int cpu = 0; cpu < l->cpus_end; cpu++)
		for (size_t i = 0; i < MAX_ADOPTERS; i++) {
			pid_t pid = (pid_t)(atomic_load(&l->shared->seat[cpu].adopter[i]) >> 32);

			if (pid && pid != getpid() && !process_is_dead(pid))
				return pid;
		}
	return 0;
}

static bool has_variable(char *const environment[], const char *assignment)
{
	size_t length = (size_t)(strchr(assignment, '=') - assignment) + 1;

	for (; *environment; environment++)
		if (strncmp(*environment, assignment, length) == 0)
			return true;
	return false;
}

/*
 * nginx clears the environment of the binary that it upgrades to. If a program sets LD_PRELOAD for the new one itself,
 * the library leaves that environment alone.
 */
size_t successor_lacks(char *const environment[])
{
	size_t lacks = 0;
	bool any = false;

	for (size_t i = 0; i < MAX_LISTENERS; i++)
		any = any || goes_along(&listeners[i]);
	if (!any || !environment || !settings_assignments[0] || has_variable(environment, "LD_PRELOAD="))
		return 0;
	for (size_t i = 0; i < MAX_SETTINGS_VARIABLES; i++)
		lacks += settings_assignments[i] && !has_variable(environment, settings_assignments[i]);
	return lacks;
}

void successor_extend(char *extended[], char *const environment[])
{
	char *const *variable = environment;

	while (*variable)
		*extended++ = *variable++;
	for (size_t i = 0; i < MAX_SETTINGS_VARIABLES; i++)
		if (settings_assignments[i] && !has_variable(environment, settings_assignments[i]))
			*extended++ = settings_assignments[i];
	*extended = NULL;
}

static void keep_open(const struct listener *l, bool open)
{
	for_each_clone(cpu, l)
		if (clone_listens(l, cpu))
			real.fcntl(clone_of(l, cpu), F_SETFD, open ? 0 : FD_CLOEXEC);
}

/* For the program that the server itself becomes. Does it keep the clones open? */
static bool leave_to_successor(struct listener *l, bool leave)
{
	pid_t other = process_of_an_adopter(l);

	if (other) { /* the new program gets the clones from that process */
		if (leave)
			mark_with(l, other);
		return false;
	}
	if (leave)
		unattended_begins(l);
	if (leave && !atomic_load(&l->shared->unattended))
		return false;
	keep_open(l, leave);
	if (leave) {
		shared_reopen();
		mark_as_ours(l);
	}
	return true;
}

/*
 * If no other worker has the clones when this process becomes another program, the kernel would reset what waits in
 * them. So the clones stay open in the new program. The filter sends new connections to the application's listener, in
 * case the new program runs without the library. A child keeps the clones open, too, because its parent may close the
 * listener before the new program gets the clones from there. A child of vfork() has its parent's tables, but changes
 * descriptors of its own.
 */
static void pass_on(bool begins, bool is_this_process)
{
	bool any = false;

	for (size_t i = 0; shared_is_open() && i < MAX_LISTENERS; i++) {
		struct listener *l = &listeners[i];

		if (!l->cloned || !goes_along(l))
			continue;
		if (is_this_process && l->creator == getpid()) {
			any = leave_to_successor(l, begins) || any;
		} else {
			keep_open(l, begins);
			any = true;
		}
	}
	if (any)
		shared_goes_along(begins);
}

void successor_comes(bool begins)
{
	pass_on(begins, true);
}

void successor_is_spawned(bool begins)
{
	pass_on(begins, false);
}
