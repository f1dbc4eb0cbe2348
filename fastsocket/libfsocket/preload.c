// SPDX-License-Identifier: MIT
#define _GNU_SOURCE

#include "flow_deliver.h"
#include "fork.h"
#include "listeners.h"
#include "log.h"
#include "process.h"
#include "real.h"
#include "settings.h"
#include "shared.h"
#include "turn.h"

/*
 * Sends what is held before the process ends: the kernel resets a connection that it closes with unread data, and drops
 * what has not left.
 */
__attribute__((destructor)) static void end(void)
{
	turn_ends();
}

__attribute__((constructor)) static void load(void)
{
	real_calls();
	log_start();
	process_start();
	read_settings();
	if (settings.flow_deliver)
		flow_deliver_start();
	fork_start();
	if (!settings.enabled)
		return;
	shared_start();
	listeners_inherit();
}
