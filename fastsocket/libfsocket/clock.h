/* SPDX-License-Identifier: MIT */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000LL
#define FOREVER (-1)

/* Three ways to read CLOCK_MONOTONIC. now_ms() is cheap, and up to a tick of the kernel late. */
uint64_t now_ms(void);
int64_t now_ns(void);
uint64_t precise_ms(void);

/* Does the kernel accept this time? NULL is a time, too. False: the kernel would refuse the call. */
bool is_time(const struct timespec *time);
/* The time in nanoseconds. NULL, and a time that does not fit, is FOREVER. */
int64_t ns_of(const struct timespec *time);
/*
 * The library divides a wait of the application into several waits of the kernel. Returns how many nanoseconds are left
 * until the deadline. left: how many there were before the kernel's last wait. waited: how long that one took at least.
 */
int64_t left_after(int64_t left, int64_t deadline, int64_t waited);

#endif
