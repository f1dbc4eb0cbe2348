/* SPDX-License-Identifier: MIT */
/*
 * How many connections wait for a worker. The program of balance.h counts those that it gives to the worker, and the
 * worker those that it accepts (pulse.h). But if a client never ends its handshake, the connection is counted, and
 * never accepted. So a worker for which many connections seem to wait asks the kernel.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "pulse.h"

/* With fewer connections a queue is not long enough to make the program choose otherwise: LONG_QUEUE in balance.c. */
#define WORTH_ASKING 4

void queue_ask(void);

/* The calling thread begins to wait, or goes on waiting. If its queue seems long, it asks the kernel first. */
static inline void worker_waits(void)
{
	if (!likely((uint64_t)pulse_queue() < WORTH_ASKING) && !seccomp_was_installed())
		queue_ask();
	pulse_sleeps();
}

#endif
