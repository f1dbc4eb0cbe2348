// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>

#include "descriptors.h"
#include "flow_deliver.h"
#include "ports.h"
#include "real.h"
#include "settings.h"
#include "shared.h"
#include "sockopt.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif

/*
 * How many ports of the CPU the library tries, and how many spare ports. A try with a port that is taken costs some
 * microseconds.
 */
#define OWN_TRIES 8
#define SPARE_TRIES 4

static unsigned int cpus;

void flow_deliver_start(void)
{
	cpus = ports_start();
	if (cpus < 2 || cpus > CPU_SETSIZE) /* every port belongs to the only CPU, or /sys had nonsense */
		turn_flow_deliver_off();
}

#define RANGE(low, high) ((uint32_t)(low) | (uint32_t)(high) << 16)

typedef int (*call_with_address)(int, const struct sockaddr *, socklen_t);

/* connect() or bind(), and how the call went with the last port that the library gave it. */
struct attempt {
	call_with_address call;
	int fd;
	const struct sockaddr *addr;
	socklen_t len;
	uint32_t port;
	int result;
};

static uint16_t port_in(const struct sockaddr *addr)
{
	uint16_t port; /* in the same place for IPv4 and IPv6 */

	memcpy(&port, (const char *)addr + offsetof(struct sockaddr_in, sin_port), sizeof(port));
	return ntohs(port);
}

/*
 * Did the call fail because the port was taken? When the kernel answers so, it has read the address: so can the
 * library.
 */
static bool clashed(const struct attempt *attempt)
{
	return attempt->call == real.connect ? errno == EADDRNOTAVAIL
	                                     : errno == EADDRINUSE && port_in(attempt->addr) == 0;
}

static bool confine(int fd, uint32_t port)
{
	int saved_errno = errno;
	bool confined = set_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, (int)RANGE(port, port));

	errno = saved_errno;
	return confined;
}

/* Makes the call with ports of these lowest bits. True: it has a result that is not a clash, and its errno. */
static bool tried(struct attempt *attempt, unsigned int bits, int tries)
{
	int saved_errno = errno;

	while (tries-- && (attempt->port = next_port(bits, cpus)) && confine(attempt->fd, attempt->port)) {
		attempt->result = attempt->call(attempt->fd, attempt->addr, attempt->len);
		if (attempt->result == 0 || !clashed(attempt))
			return true;
		errno = saved_errno;
	}
	return false;
}

static bool settled_on_cpu(struct attempt *attempt, unsigned int cpu)
{
	unsigned int spare = cpu + cpus;

	return tried(attempt, cpu, OWN_TRIES) || (spare <= port_mask(cpus) && tried(attempt, spare, SPARE_TRIES));
}

static int by_the_kernel(struct attempt *attempt)
{
	attempt->port = 0;
	look_at_local_ports_again();
	return attempt->call(attempt->fd, attempt->addr, attempt->len);
}

/*
 * Has the socket no port range yet? The kernel is asked only for a socket that the library did not see being made: one
 * that it saw (OPENED) has a range only if the library saw the application set one. The kernel may not know the option
 * at all.
 */
static bool has_no_range(int fd)
{
	int saved_errno = errno;
	bool none = get_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, -1) == 0;

	errno = saved_errno;
	return none;
}

static bool is_tcp_quietly(int fd)
{
	int saved_errno = errno;
	bool is = is_tcp(fd);

	errno = saved_errno;
	return is;
}

static bool may_be_given_port(int fd, enum descriptor kind)
{
	return kind == OPENED || (is_tcp_quietly(fd) && has_no_range(fd));
}

/* The kernel gives the port that was asked for, unless its own range has changed: check this now and then. */
#define LOOK_EVERY 16
THREAD_LOCAL unsigned int until_look;

static uint32_t port_of(int fd)
{
	struct sockaddr_storage own = { 0 };
	socklen_t size = sizeof(own);

	getsockname(fd, (struct sockaddr *)&own, &size);
	return port_in((struct sockaddr *)&own);
}

static void count_delivery(int fd, uint32_t wanted, unsigned int cpu)
{
	int saved_errno = errno;
	uint32_t port = wanted;

	if (!wanted || until_look-- == 0) {
		port = port_of(fd);
		until_look = LOOK_EVERY - 1;
	}
	if (port != wanted)
		look_at_local_ports_again();
	if (port && shared_is_open())
		count(core_of_port((uint16_t)port, cpus) == cpu ? &counters_of((int)cpu)->delivered
		                                                : &counters_of((int)cpu)->undelivered);
	errno = saved_errno;
}

/* Changes the kind of a descriptor. If another thread has closed it meanwhile, it stays as it is. */
static void become(int fd, enum descriptor was, enum descriptor kind)
{
	if ((unsigned int)fd < MAX_FDS)
		change_descriptor(fd, was, kind);
}

static bool has_port(int result)
{
	return result == 0 || errno == EINPROGRESS || errno == EINTR;
}

/*
 * Removing the port range from a socket is a system call. So on a socket that the library saw being made the range
 * stays until the application could notice: getsockopt() hides it, and the functions below remove it before anything
 * else happens to the socket.
 */
static int connect_on_cpu(struct attempt *attempt, enum descriptor was, unsigned int cpu)
{
	bool settled = settled_on_cpu(attempt, cpu), stays = settled && was == OPENED && has_port(attempt->result);

	if (!stays)
		confine(attempt->fd, 0);
	if (!settled)
		attempt->result = by_the_kernel(attempt);
	if (has_port(attempt->result)) {
		become(attempt->fd, was, stays ? DELIVERED : PLAIN);
		count_delivery(attempt->fd, attempt->port, cpu);
	}
	return attempt->result;
}

static void release(int fd)
{
	become(fd, DELIVERED, PLAIN);
	confine(fd, 0);
}

void flow_deliver_any_port(int fd)
{
	if (descriptor(fd) == DELIVERED)
		release(fd);
}

static bool is_disconnect(const struct sockaddr *addr)
{
	sa_family_t family;

	memcpy(&family, (const char *)addr + offsetof(struct sockaddr, sa_family), sizeof(family));
	return family == AF_UNSPEC;
}

/*
 * The application calls connect() again, to ask how its connect() went, or to disconnect the socket. The range must not
 * outlive the connection: with it, a socket that connects to its own former port would meet itself.
 */
static int connect_delivered(int fd, const struct sockaddr *addr, socklen_t len)
{
	int result = real.connect(fd, addr, len);

	if (!likely(result == 0 ? !is_disconnect(addr) : errno == EISCONN || errno == EALREADY))
		release(fd);
	return result;
}

int flow_deliver_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct attempt attempt = { .call = real.connect, .fd = fd, .addr = addr, .len = len };
	enum descriptor kind = descriptor(fd);
	unsigned int cpu = (unsigned int)sched_getcpu();

	if (kind == DELIVERED)
		return connect_delivered(fd, addr, len);
	if (cpu >= cpus || !may_be_given_port(fd, kind))
		return real.connect(fd, addr, len);
	return connect_on_cpu(&attempt, kind, cpu);
}

int flow_deliver_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct attempt attempt = { .call = real.bind, .fd = fd, .addr = addr, .len = len };
	unsigned int cpu = (unsigned int)sched_getcpu();
	bool settled;

	flow_deliver_any_port(fd);
	if (cpu >= cpus || !may_be_given_port(fd, descriptor(fd)))
		return real.bind(fd, addr, len);
	settled = settled_on_cpu(&attempt, cpu);
	confine(fd, 0);
	return settled ? attempt.result : by_the_kernel(&attempt);
}

bool flow_deliver_hides(int fd, int level, int name)
{
	return descriptor(fd) == DELIVERED && level == IPPROTO_IP && name == IP_LOCAL_PORT_RANGE;
}

void flow_deliver_setsockopt(int fd, int level, int name)
{
	if (level != IPPROTO_IP || name != IP_LOCAL_PORT_RANGE)
		return;
	become(fd, OPENED, UNKNOWN);
	become(fd, DELIVERED, PLAIN);
}

void flow_deliver_shared(int fd)
{
	if (descriptor(fd) == OPENED)
		become(fd, OPENED, UNKNOWN);
	flow_deliver_any_port(fd);
}
