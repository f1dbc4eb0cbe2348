/* SPDX-License-Identifier: MIT */
/*
 * A histogram with a bounded relative error, as HdrHistogram has it: buckets of twice the width of the one before, each
 * of SUB_BUCKETS / 2 equal places. Source: hdrhistogram.org.
 */
#include "generator.h"

static size_t place_of(uint64_t value)
{
	unsigned int bits = 64 - (unsigned int)__builtin_clzll(value | 1);
	unsigned int bucket = bits > 11 ? bits - 11 : 0; /* 2^11 is SUB_BUCKETS */

	return bucket * (SUB_BUCKETS / 2) + (size_t)(value >> bucket);
}

uint64_t histogram_value(size_t place)
{
	size_t bucket = place < SUB_BUCKETS ? 0 : place / (SUB_BUCKETS / 2) - 1;

	return (uint64_t)(place - bucket * (SUB_BUCKETS / 2)) << bucket;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	size_t place = place_of(ns);

	histogram->count[place < HISTOGRAM_SIZE ? place : HISTOGRAM_SIZE - 1]++;
}

void histogram_merge(struct histogram *into, const struct histogram *other)
{
	for (size_t i = 0; i < HISTOGRAM_SIZE; i++)
		into->count[i] += other->count[i];
}
