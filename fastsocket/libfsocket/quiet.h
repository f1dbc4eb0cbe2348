/* SPDX-License-Identifier: MIT */
/*
 * A signal ends a wait, so none may come while the library looks after its listeners between two parts of a wait: the
 * application would go on waiting. From the first such look of a wait on, signals are delivered only while the kernel
 * waits.
 */
#ifndef QUIET_H
#define QUIET_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/* Zeroed at the beginning of a wait. */
struct quiet {
	bool is_begun;
	sigset_t before;
};

void quiet_begins(struct quiet *quiet);
void quiet_ends(struct quiet *quiet);

/* The mask while the kernel waits. asked: the application's own, or NULL. */
static inline const sigset_t *mask_in(const struct quiet *quiet, const sigset_t *asked)
{
	return asked || !quiet->is_begun ? asked : &quiet->before;
}

#endif
