/* SPDX-License-Identifier: MIT */
/* When each request is due. The same seed gives the same schedule. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generator.h"

/* splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

/* From the exponential distribution with mean 1. */
static double next_exponential(uint64_t *state)
{
	double uniform = (double)(next_random(state) >> 11) * 0x1p-53; /* from 0 to below 1 */

	return -log1p(-uniform);
}

static void append(struct schedule *schedule, size_t *room, double seconds)
{
	if (schedule->length == *room) {
		*room = *room ? 2 * *room : 4096;
		schedule->due = realloc(schedule->due, *room * sizeof(*schedule->due));
		if (!schedule->due) {
			fprintf(stderr, "generator: no memory for %zu requests\n", *room);
			exit(3);
		}
	}
	schedule->due[schedule->length++] = (uint64_t)(seconds * (double)NS_PER_SECOND);
}

/*
 * The sum of independent Poisson processes is one, so each thread has its part of the rate. Of a constant rate the threads
 * take turns. In units of the mean interval, position runs evenly through pieces of different rates.
 */
struct schedule schedule_make(const struct options *options, size_t thread)
{
	uint64_t state = options->seed + thread * 0x632be59bd9b4e019ULL;
	double threads = (double)options->threads, begins = 0;
	double position = options->arrivals == POISSON ? next_exponential(&state) : ((double)thread + 1) / threads;
	struct schedule schedule = { 0 };
	size_t room = 0;

	for (size_t i = 0; i < options->pieces; i++) {
		const struct piece *piece = &options->piece[i];
		double rate = piece->rate / threads, length = piece->seconds * rate;

		while (position < length) {
			append(&schedule, &room, begins + position / rate);
			position += options->arrivals == POISSON ? next_exponential(&state) : 1;
		}
		position -= length;
		begins += piece->seconds;
	}
	return schedule;
}

/* ---- the check ------------------------------------------------------------------------------------------------ */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The rate at a time, in requests per ns. */
static double rate_at(const struct options *options, double ns)
{
	double end = 0;

	for (size_t i = 0; i < options->pieces; i++) {
		end += options->piece[i].seconds * (double)NS_PER_SECOND;
		if (ns < end || i + 1 == options->pieces)
			return options->piece[i].rate / (double)NS_PER_SECOND;
	}
	return 0;
}

/* Intervals of a Poisson process, in units of their mean, are below x with this probability. */
static double expected_below(double x)
{
	return -expm1(-x);
}

double schedule_distance(const struct options *options, const uint64_t *sent, size_t length)
{
	static double interval[SAMPLE];
	size_t step = length > SAMPLE ? (length - 1) / SAMPLE : 1, n = 0;
	double largest = 0;

	for (size_t i = 0; i + 1 < length && n < SAMPLE; i += step)
		interval[n++] = (double)(sent[i + 1] - sent[i]) * rate_at(options, (double)sent[i]);
	if (!n)
		return 0;
	qsort(interval, n, sizeof(interval[0]), by_size);
	for (size_t i = 0; i < n; i++) {
		double below = expected_below(interval[i]);

		if (options->arrivals == CONSTANT) /* every interval is 1, within a tenth */
			below = interval[i] < 0.9 ? 0 : interval[i] > 1.1 ? 1 : ((double)i + 0.5) / (double)n;
		largest = fmax(largest, fmax(((double)i + 1) / (double)n - below, below - (double)i / (double)n));
	}
	return largest;
}
