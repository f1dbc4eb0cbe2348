/* SPDX-License-Identifier: MIT */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000LL
#define FOREVER (-1)

/* CLOCK_MONOTONIC. now_ms() is cheap, and up to a tick of the kernel late. */
uint64_t now_ms(void);
int64_t now_ns(void);
uint64_t precise_ms(void);

/* Would the kernel take this time, and not refuse the call? */
bool is_time(const struct timespec *time);
/* In nanoseconds; NULL is FOREVER. */
int64_t ns_of(const struct timespec *time);
/*
 * How many nanoseconds of a wait are left until the deadline. left: how many there were before the kernel waited last.
 * waited: how long the kernel has waited, as far as is known.
 */
int64_t left_after(int64_t left, int64_t deadline, int64_t waited);

#endif
