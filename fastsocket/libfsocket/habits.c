// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "habits.h"

/*
 * A failure takes as many points as eight shows bring. So a score rises only if more than eight of nine connections
 * show the habit.
 */
#define FIRM 32
#define MOST (2 * FIRM)
#define FAILURE 8
/* The library learns from all of the first connections, then from one in this many. */
#define FIRST 64
#define SAMPLE 8

void habit_meets(struct habit *habit, uint32_t generation)
{
	if (!__builtin_expect(atomic_load_explicit(&habit->generation, memory_order_relaxed) == generation, 1)) {
		atomic_store(&habit->score, 0);
		atomic_store(&habit->seen, 0);
		atomic_store(&habit->generation, generation);
	}
	atomic_fetch_add_explicit(&habit->seen, 1, memory_order_relaxed);
}

bool habit_is_firm(const struct habit *habit)
{
	return atomic_load_explicit(&habit->score, memory_order_relaxed) >= FIRM;
}

bool habit_is_sampled(const struct habit *habit)
{
	uint32_t seen = atomic_load_explicit(&habit->seen, memory_order_relaxed);

	return seen <= FIRST || seen % SAMPLE == 0;
}

/* If two threads add points at the same time, one of the additions may be lost. */
static void add(struct habit *habit, int points)
{
	int score = atomic_load_explicit(&habit->score, memory_order_relaxed) + points;

	atomic_store_explicit(&habit->score, score < 0 ? 0 : score > MOST ? MOST : score, memory_order_relaxed);
}

void habit_shows(struct habit *habit)
{
	add(habit, 1);
}

void habit_fails(struct habit *habit)
{
	add(habit, -FAILURE);
}

void habit_ends(struct habit *habit)
{
	add(habit, -MOST);
}
