/* SPDX-License-Identifier: MIT */
/*
 * A signal ends a wait of the application. The library divides such a wait into parts, and looks after its listeners
 * between two of them. If a signal came there, its handler would run, but the application would go on waiting. So from
 * the first look in a wait on, signals are delivered only while the kernel waits.
 */
#ifndef QUIET_H
#define QUIET_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/* What to remember of the signals during one wait. Zero it at the beginning of the wait. */
struct quiet {
	bool is_begun;
	sigset_t before;
};

void quiet_begins(struct quiet *quiet);
void quiet_ends(struct quiet *quiet);

/* The signal mask for a wait of the kernel. asked: the mask that the application gave, or NULL. */
static inline const sigset_t *mask_in(const struct quiet *quiet, const sigset_t *asked)
{
	return asked || !quiet->is_begun ? asked : &quiet->before;
}

#endif
