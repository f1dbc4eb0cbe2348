// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>

#include "adopt.h"
#include "queue.h"
#include "sockopt.h"

/* A worker asks the kernel no more often than this. So a worker that has much to do makes hardly more system calls. */
#define ASK_EVERY_NS 100000

THREAD_LOCAL int64_t asked_ns;

static int64_t waiting_for_this_thread(void)
{
	int64_t waiting = 0;

	for (size_t i = 0; i < MAX_LISTENERS; i++) {
		const struct listener *l = &listeners[i];
		const struct adoption *mine = adoption_of(l);

		if (mine && l->generation && l->cloned)
			waiting += queue_of(atomic_load(&l->clone[mine->cpu].fd));
	}
	return waiting;
}

void queue_ask(void)
{
	int saved_errno = errno;
	int64_t now = now_ns();

	if (now - asked_ns < ASK_EVERY_NS)
		return;
	asked_ns = now;
	pulse_has_queue(waiting_for_this_thread());
	errno = saved_errno;
}
