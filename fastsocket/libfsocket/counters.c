// SPDX-License-Identifier: MIT
/*
 * Counters in a memfd: shared by a server's whole process tree, named in /proc/PID/maps so that a reader finds them,
 * and gone with the last process, however that one ends.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fsocket.h"

static struct fsocket_counters *counters;

bool counters_open(void)
{
	struct fsocket_counters *map;
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	size_t size;
	int fd;

	if (counters)
		return true;
	if (cpus < 1)
		return false;
	size = sizeof(*map) + (size_t)cpus * sizeof(map->cpu[0]);
	fd = memfd_create(FSOCKET_COUNTERS_NAME, MFD_CLOEXEC);
	if (fd < 0)
		return false;
	map = ftruncate(fd, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	real.close(fd); /* the mapping keeps it; the application gets its descriptor back */
	if (map == MAP_FAILED)
		return false;
	memcpy(map->magic, FSOCKET_COUNTERS_MAGIC, sizeof(map->magic));
	map->version = FSOCKET_COUNTERS_VERSION;
	map->cpus = (uint32_t)cpus;
	counters = map;
	return true;
}

struct fsocket_cpu_counters *counters_of(int cpu)
{
	return &counters->cpu[cpu >= 0 && (uint32_t)cpu < counters->cpus ? cpu : 0];
}
