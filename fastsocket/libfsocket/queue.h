/* SPDX-License-Identifier: MIT */
/*
 * How many connections wait for a worker. The program of balance.h counts those that it gives to the worker, and the
 * worker those that it accepts (pulse.h). A handshake that its client never ends is counted and not accepted. So a
 * worker for which many seem to wait asks the kernel.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "pulse.h"

/* Fewer misplace no connection: LONG_QUEUE in balance.c. */
#define WORTH_ASKING 4

void queue_ask(void);

/* The calling thread begins to wait, or goes on waiting. */
static inline void worker_waits(void)
{
	if (!likely((uint64_t)pulse_queue() < WORTH_ASKING) && !seccomp_was_installed())
		queue_ask();
	pulse_sleeps();
}

#endif
