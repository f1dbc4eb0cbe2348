/* SPDX-License-Identifier: MIT */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC. now_ms() is cheap, and up to a tick of the kernel late. */
uint64_t now_ms(void);
int64_t now_ns(void);
uint64_t precise_ms(void);

#endif
