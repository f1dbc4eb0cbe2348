/* SPDX-License-Identifier: MIT */
/*
 * A habit is what the connections of a listener nearly always do. Before the library relies on a habit, it learns from
 * some of the connections. While it relies on the habit, it learns from all of them.
 */
#ifndef HABITS_H
#define HABITS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct habit {
	_Atomic uint32_t generation; /* of the listener; another listener begins anew */
	_Atomic uint32_t seen;       /* how many connections */
	atomic_int score;
};

/*
 * A connection was accepted from a listener of this generation: counts it. For another generation the habit begins
 * anew.
 */
void habit_meets(struct habit *habit, uint32_t generation);
/* Do enough connections show the habit, so that the library can rely on it? */
bool habit_is_firm(const struct habit *habit);
/* Is the connection that was counted last one to learn from? */
bool habit_is_sampled(const struct habit *habit);
void habit_shows(struct habit *habit);
void habit_fails(struct habit *habit);
void habit_ends(struct habit *habit);

#endif
