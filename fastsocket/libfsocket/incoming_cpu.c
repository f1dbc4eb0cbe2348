// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/utsname.h>

#include "affinity.h"
#include "incoming_cpu.h"
#include "process.h"
#include "real.h"
#include "sockopt.h"

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

#define MEMBERS 3
#define PROBE_CONNECTIONS 8

/* A connection closed like this leaves no TIME_WAIT, which would hold a port for a minute. */
static void reset(int fd)
{
	struct linger at_once = { .l_onoff = 1 };

	real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	real.close(fd);
}

static bool probe_connection_arrives(int fd, const struct sockaddr_in *address)
{
	int client = real.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), server = -1;

	if (!real.connect(client, (const struct sockaddr *)address, sizeof(*address)))
		server = real.accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (server >= 0)
		reset(server);
	reset(client);
	return server >= 0;
}

/*
 * Loopback handles a SYN on the CPU that sends it. So of three listeners the one marked with this CPU must get all
 * connections. errno is 0, or says why it could not be tried.
 */
static bool probe_incoming_cpu(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	cpu_set_t before, here;
	int cpu = sched_getcpu(), member[MEMBERS] = { -1, -1, -1 }, error;
	bool honoured = true;

	errno = 0;
	if (seccomp_at_start()) { /* the filter may kill a process that pins itself */
		errno = EPERM;
		return false;
	}
	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	if (!affinity_of_this_thread(&before) || sched_setaffinity(0, sizeof(here), &here))
		return false;
	for (int i = 0; honoured && i < MEMBERS; i++) {
		member[i] = probe_listener(&address, cpu + i);
		honoured = member[i] >= 0;
	}
	for (int i = 0; honoured && i < PROBE_CONNECTIONS; i++)
		honoured = probe_connection_arrives(member[0], &address);
	error = honoured || errno == EAGAIN ? 0 : errno; /* EAGAIN: a connection went to another listener */
	for (int i = 0; i < MEMBERS; i++)
		real.close(member[i]);
	sched_setaffinity(0, sizeof(before), &before);
	errno = error;
	return honoured;
}

/* Linux 6.2 and later honour it. Distributions have backported that, so on an older kernel the library tries it out. */
bool kernel_honours_incoming_cpu(void)
{
	struct utsname system = { 0 };
	static atomic_bool was_honoured;
	int major = 0, minor = 0;

	uname(&system);
	sscanf(system.release, "%d.%d", &major, &minor);
	if (major * 1000 + minor >= 6002 || atomic_load(&was_honoured))
		return true;
	atomic_store(&was_honoured, probe_incoming_cpu());
	return atomic_load(&was_honoured);
}
