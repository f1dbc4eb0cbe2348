// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <time.h>

#include "clock.h"
#include "readable.h"

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t precise_ms(void)
{
	return (uint64_t)now_ns() / 1000000;
}

int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool is_time(const struct timespec *time)
{
	return !time || (is_readable(time, sizeof(*time)) && time->tv_sec >= 0 && time->tv_nsec >= 0 &&
	                 time->tv_nsec < 1000 * NS_PER_MS);
}

/* A time of more than some centuries does not fit, and counts as FOREVER. */
int64_t ns_of(const struct timespec *time)
{
	return time && time->tv_sec < INT64_MAX / (1000 * NS_PER_MS) - 1
		       ? time->tv_sec * 1000 * NS_PER_MS + time->tv_nsec
		       : FOREVER;
}

/* Another preloaded library may show a clock that stands still, so the time that the kernel has waited counts, too. */
int64_t left_after(int64_t left, int64_t deadline, int64_t waited)
{
	int64_t by_clock;

	if (left <= 0) /* FOREVER, too */
		return left;
	by_clock = deadline - now_ns();
	left = by_clock < left - waited ? by_clock : left - waited;
	return left > 0 ? left : 0;
}
