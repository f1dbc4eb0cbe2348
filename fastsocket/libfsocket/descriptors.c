// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "descriptors.h"
#include "real.h"
#include "sockopt.h"

_Atomic uint8_t descriptors[MAX_FDS];
_Atomic uint32_t descriptors_end;

__thread bool has_own_table INITIAL_EXEC;
atomic_bool is_inert;

void extend_descriptors(uint32_t end)
{
	uint32_t known = atomic_load(&descriptors_end);

	while (known < end && !atomic_compare_exchange_weak(&descriptors_end, &known, end))
		;
}

int keep_descriptor(int fd, enum descriptor kind)
{
	fd = out_of_the_way(fd);
	if (fd >= MAX_FDS) {
		real.close(fd);
		return -1;
	}
	if (fd >= 0)
		set_descriptor(fd, kind);
	return fd;
}
