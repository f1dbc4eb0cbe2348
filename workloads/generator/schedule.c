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

/* A random number from the exponential distribution with mean 1. */
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

/* How many requests of each burst a thread begins. */
static size_t part_of_burst(const struct options *options, size_t thread)
{
	return options->burst / options->threads + (thread < options->burst % options->threads);
}

/*
 * The sum of independent Poisson processes is a Poisson process, so each thread has its part of the rate. Bursts come
 * at the same times in all threads. At a constant rate the threads take turns. position counts in mean intervals, so it
 * runs evenly through pieces of different rates.
 */
struct schedule schedule_make(const struct options *options, size_t thread)
{
	uint64_t state = options->seed + (options->burst ? 0 : thread * 0x632be59bd9b4e019ULL);
	double threads = (double)options->threads, begins = 0;
	double parts = options->burst ? (double)options->burst : threads;
	size_t at_once = options->burst ? part_of_burst(options, thread) : 1;
	double position = options->arrivals == POISSON ? next_exponential(&state) : ((double)thread + 1) / threads;
	struct schedule schedule = { 0 };
	size_t room = 0;

	for (size_t i = 0; i < options->pieces; i++) {
		const struct piece *piece = &options->piece[i];
		double rate = piece->rate / parts, length = piece->seconds * rate;

		while (position < length) {
			for (size_t n = 0; n < at_once; n++)
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

/*
 * How many requests an interval of the check spans, so that it lasts RESOLUTION on average. A thread cannot begin two
 * requests in less time than a connect() takes, which is no small part of single intervals at a high rate.
 */
static size_t span(double rate)
{
	return (size_t)fmax(1, ceil(RESOLUTION * rate));
}

/*
 * The probability that a Poisson process takes less than x for this many arrivals, in units of the mean interval (the
 * Erlang distribution).
 */
static double expected_below(double x, size_t arrivals)
{
	double term = exp(-x), above = term;

	for (size_t i = 1; i < arrivals; i++)
		above += term *= x / (double)i;
	return 1 - above;
}

/* Did this many even intervals take as long as they should, within a tenth? */
static bool is_even(double x, size_t arrivals)
{
	return fabs(x / (double)arrivals - 1) <= 0.1;
}

/* The largest difference between the distribution of these values and the uniform one from 0 to 1. */
static double distance_from_uniform(double *value, size_t length)
{
	double largest = 0, n = (double)length;

	qsort(value, length, sizeof(*value), by_size);
	for (size_t i = 0; i < length; i++)
		largest = fmax(largest, fmax(((double)i + 1) / n - value[i], value[i] - (double)i / n));
	return largest;
}

struct check schedule_check(const struct options *options, const uint64_t *sent, size_t length)
{
	static double below[SAMPLE];
	size_t together = options->burst ? options->burst : 1, n = 0, uneven = 0, spread;

	length /= together; /* of a burst, only the first request counts */
	spread = length / SAMPLE;
	for (size_t i = 0, arrivals; n<SAMPLE; i += arrivals> spread ? arrivals : spread) {
		double rate = rate_at(options, i < length ? (double)sent[i * together] : 0) / (double)together, passed;

		arrivals = span(rate);
		if (i + arrivals >= length)
			break;
		passed = (double)(sent[(i + arrivals) * together] - sent[i * together]) * rate;
		uneven += !is_even(passed, arrivals);
		below[n++] = expected_below(passed, arrivals);
	}
	if (!n)
		return (struct check){ 0 };
	return (struct check){
		.intervals = n,
		.distance =
			options->arrivals == CONSTANT ? (double)uneven / (double)n : distance_from_uniform(below, n),
	};
}
