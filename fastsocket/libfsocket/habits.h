/* SPDX-License-Identifier: MIT */
/*
 * What the connections of a listener nearly always do. The library learns it from some of them before it relies on it,
 * and from all of them while it relies on it.
 */
#ifndef HABITS_H
#define HABITS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct habit {
	_Atomic uint32_t generation; /* of the listener: another one has its own habits */
	_Atomic uint32_t seen;       /* connections */
	atomic_int score;
};

/* A connection was accepted from a listener of this generation. */
void habit_meets(struct habit *habit, uint32_t generation);
/* Can the library rely on it? */
bool habit_is_firm(const struct habit *habit);
/* Is the newest connection one to learn from? */
bool habit_is_sampled(const struct habit *habit);
void habit_shows(struct habit *habit);
void habit_fails(struct habit *habit);
void habit_ends(struct habit *habit);

#endif
