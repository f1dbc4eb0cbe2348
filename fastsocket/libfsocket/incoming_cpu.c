// SPDX-License-Identifier: MIT
/* Does this kernel honour SO_INCOMING_CPU inside a reuseport group? It did not from 4.6 until b261eda84ec1 (6.2). */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fsocket.h"

static int probe_listener(struct sockaddr_in *address, int cpu)
{
	socklen_t size = sizeof(*address);
	int fd = real.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) && set_int(fd, SOL_SOCKET, SO_INCOMING_CPU, cpu) &&
	    !real.bind(fd, (struct sockaddr *)address, size) && !real.listen(fd, 16) &&
	    !getsockname(fd, (struct sockaddr *)address, &size))
		return fd;
	if (fd >= 0)
		real.close(fd);
	return -1;
}

#define PROBE_CONNECTIONS 8

static bool probe_connections_arrive(int fd, const struct sockaddr_in *address)
{
	int arrived = 0;

	for (int i = 0; i < PROBE_CONNECTIONS; i++) {
		int client = real.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int server = -1;

		if (client >= 0 && !real.connect(client, (const struct sockaddr *)address, sizeof(*address)))
			server = real.accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (server >= 0) {
			arrived++;
			real.close(server);
		}
		if (client >= 0)
			real.close(client);
	}
	return arrived == PROBE_CONNECTIONS;
}

/* Over loopback a SYN is handled on the CPU that sends it: all must reach the member marked with ours, of three. */
static bool probe_incoming_cpu(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	cpu_set_t before, here;
	int cpu = sched_getcpu(), member[3];
	bool honoured;

	if (cpu < 0 || sched_getaffinity(0, sizeof(before), &before))
		return false;
	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	if (sched_setaffinity(0, sizeof(here), &here))
		return false;
	member[0] = probe_listener(&address, cpu);
	member[1] = probe_listener(&address, cpu + 1);
	member[2] = probe_listener(&address, cpu + 2);
	honoured = member[0] >= 0 && member[1] >= 0 && member[2] >= 0 && probe_connections_arrive(member[0], &address);
	for (size_t i = 0; i < COUNT(member); i++)
		if (member[i] >= 0)
			real.close(member[i]);
	sched_setaffinity(0, sizeof(before), &before);
	return honoured;
}

/* In the mainline from 6.2; distributions have backported it, so older kernels are asked. */
bool kernel_honours_incoming_cpu(void)
{
	struct utsname system;
	int major = 0, minor = 0;

	if (uname(&system) || sscanf(system.release, "%d.%d", &major, &minor) != 2)
		return false;
	return major > 6 || (major == 6 && minor >= 2) || probe_incoming_cpu();
}
