// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "quiet.h"

void quiet_begins(struct quiet *quiet)
{
	sigset_t all;

	if (quiet->is_begun)
		return;
	sigfillset(&all);
	quiet->is_begun = !pthread_sigmask(SIG_SETMASK, &all, &quiet->before);
}

void quiet_ends(struct quiet *quiet)
{
	if (quiet->is_begun)
		pthread_sigmask(SIG_SETMASK, &quiet->before, NULL);
	quiet->is_begun = false;
}
