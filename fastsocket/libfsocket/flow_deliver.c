// SPDX-License-Identifier: MIT
/*
 * Receive Flow Deliver, for active connections: connect() uses a source port that belongs to the CPU it runs on, so
 * that a NIC which steers by destination port brings the replies there.
 *
 * The kernel chooses the port as ever, but within a range of one port (IP_LOCAL_PORT_RANGE, Linux 6.3): so a port is
 * shared by connections to different destinations, TIME_WAIT is reused, and reserved ports are left alone, by the
 * kernel's own rules. A clash is another try with another port; after a few the kernel chooses among all. Before 6.3
 * it always does, because the only other way, to bind() a port with SO_REUSEADDR, shows in what the application can
 * ask of its socket, and keeps the port when it disconnects.
 *
 * A socket that the application binds to port 0 gets its port at bind(), in the same way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif

/* A try that clashes costs some microseconds. */
#define OWN_TRIES 8
#define SPARE_TRIES 4
#define LOOK_AGAIN_MS 1000
#define RANGE(low, high) ((uint32_t)(low) | (uint32_t)(high) << 16)

static unsigned int cpus;
static _Atomic uint32_t local_ports = RANGE(32768, 60999); /* net.ipv4.ip_local_port_range */
static _Atomic uint64_t looked_ms;

/* ---- what the machine has ------------------------------------------------------------------------------------- */

/*
 * No libc call that could be a cancellation point, or interposed by somebody: a connect() on its way must not notice.
 */
static bool read_text(const char *path, char *text, size_t size)
{
	int saved_errno = errno;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long length = -1;

	if (fd >= 0) {
		length = syscall(SYS_read, fd, text, size - 1);
		syscall(SYS_close, fd);
	}
	text[length > 0 ? length : 0] = '\0';
	errno = saved_errno;
	return length > 0;
}

/* Of the calling thread's network namespace; where it cannot be read, what was known stays. */
static void look_at_local_ports(void)
{
	char text[32], *rest;
	unsigned long low, high;

	atomic_store(&looked_ms, now_ms());
	if (!read_text("/proc/sys/net/ipv4/ip_local_port_range", text, sizeof(text)))
		return;
	low = strtoul(text, &rest, 10);
	high = strtoul(rest, NULL, 10);
	if (low && low <= high && high <= UINT16_MAX)
		atomic_store(&local_ports, RANGE(low, high));
}

/* The range may have changed, or the thread may have entered another network namespace. */
static void look_again(void)
{
	if (now_ms() - atomic_load(&looked_ms) >= LOOK_AGAIN_MS)
		look_at_local_ports();
}

/* As the kernel counts them, and so whoever steers: the highest possible CPU, which ends a list such as 0-3,8-11. */
static unsigned int possible_cpus(void)
{
	char text[256];
	size_t end;

	if (!read_text("/sys/devices/system/cpu/possible", text, sizeof(text)))
		return (unsigned int)sysconf(_SC_NPROCESSORS_CONF);
	end = strcspn(text, "\n");
	while (end && text[end - 1] >= '0' && text[end - 1] <= '9')
		end--;
	return (unsigned int)strtoul(text + end, NULL, 10) + 1;
}

void flow_deliver_start(void)
{
	cpus = possible_cpus();
	look_at_local_ports();
	if (cpus < 2 || cpus > CPU_SETSIZE) /* every port is the right one, or nonsense was read */
		settings.flow_deliver = false;
}

/* ---- the next port -------------------------------------------------------------------------------------------- */

/*
 * Each thread walks through the ports of its CPU in an order of its own, a keyed permutation with a new key each lap.
 * No port comes again before all others have been used, so connections that close in the order in which they were
 * opened clash but seldom. And who knows some ports cannot tell the next one (RFC 6056). The kernel's own walk can be
 * told, so it begins elsewhere for each destination; ours needs no destination, which must not be read before the kernel
 * has found that it can be.
 */
#define ROUNDS 4

THREAD_LOCAL uint64_t keys[ROUNDS];
THREAD_LOCAL uint32_t position; /* a lap ends wherever it is a multiple of the domain's size */

/* Every bit of the result depends on all of x. */
static uint32_t mixed(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
	return (uint32_t)(x >> 32);
}

/* A Feistel network: a permutation of the numbers of twice half_bits, whatever the keys. */
static uint32_t permuted(uint32_t number, unsigned int half_bits)
{
	uint32_t half = (1U << half_bits) - 1;
	uint32_t left = number >> half_bits, right = number & half;

	for (size_t i = 0; i < ROUNDS; i++) {
		uint32_t next = left ^ (mixed(keys[i] + right) & half);

		left = right;
		right = next;
	}
	return left << half_bits | right;
}

/* The next number below n, or one that is not where there is no key. */
static uint32_t next_number(uint32_t n)
{
	unsigned int half_bits = n > 1 ? (33U - (unsigned int)__builtin_clz(n - 1)) / 2 : 0;
	uint32_t domain = 1U << 2 * half_bits;
	uint32_t number;

	do {
		if (!(position % domain) &&
		    syscall(SYS_getrandom, keys, sizeof(keys), GRND_NONBLOCK) != (long)sizeof(keys))
			return n;
		number = permuted(position++ % domain, half_bits);
	} while (number >= n);
	return number;
}

void flow_deliver_after_fork(void)
{
	position = 0;
}

/* A local port with these lowest bits; 0: none. */
static uint32_t next_port(unsigned int bits)
{
	uint32_t stride = port_mask(cpus) + 1, range = atomic_load_explicit(&local_ports, memory_order_relaxed);
	uint32_t low = range & UINT16_MAX, high = range >> 16;
	uint32_t first = low + (bits - low) % stride;
	uint32_t n = first <= high ? (high - first) / stride + 1 : 0;
	uint32_t number = n ? next_number(n) : 0;

	return number < n ? first + number * stride : 0;
}

/* ---- connect() and bind() ------------------------------------------------------------------------------------- */

typedef int (*call_with_address)(int, const struct sockaddr *, socklen_t);

static uint16_t port_in(const struct sockaddr *addr)
{
	uint16_t port; /* in the same place for IPv4 and IPv6 */

	memcpy(&port, (const char *)addr + offsetof(struct sockaddr_in, sin_port), sizeof(port));
	return ntohs(port);
}

/* What the kernel answers where a port of its choice is taken; it has read the address before. */
static bool clashed(call_with_address call, const struct sockaddr *addr)
{
	return call == real.connect ? errno == EADDRNOTAVAIL : errno == EADDRINUSE && port_in(addr) == 0;
}

static bool confine(int fd, uint32_t port)
{
	int saved_errno = errno;
	bool confined = set_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, (int)RANGE(port, port));

	errno = saved_errno;
	return confined;
}

/* Has one of our ports settled it? Then there is a result, and errno. */
static bool tried(call_with_address call, int fd, const struct sockaddr *addr, socklen_t len, unsigned int bits,
		  int tries, int *result)
{
	int saved_errno = errno;
	uint32_t port;

	while (tries-- && (port = next_port(bits)) && confine(fd, port)) {
		*result = call(fd, addr, len);
		if (*result == 0 || !clashed(call, addr))
			return true;
		errno = saved_errno;
	}
	return false;
}

/* The call, with a port of the CPU if the port is open. */
static int call_on_cpu(call_with_address call, int fd, const struct sockaddr *addr, socklen_t len, unsigned int cpu)
{
	unsigned int spare = cpu + cpus;
	bool settled;
	int result;

	settled = tried(call, fd, addr, len, cpu, OWN_TRIES, &result) ||
		  (spare <= port_mask(cpus) && tried(call, fd, addr, len, spare, SPARE_TRIES, &result));
	confine(fd, 0);
	if (settled)
		return result;
	look_again();
	return call(fd, addr, len);
}

static bool is_tcp(int fd)
{
	int saved_errno = errno;
	bool is = descriptor(fd) == OPENED || (get_int(fd, SOL_SOCKET, SO_TYPE, -1) == SOCK_STREAM &&
					       get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP);

	errno = saved_errno;
	return is;
}

/*
 * Not if the application has set a range of its own, or another process that shares the socket has, which is why the
 * kernel is asked; and not if the kernel knows of no such thing.
 */
static bool has_no_range(int fd)
{
	int saved_errno = errno;
	bool none = get_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, -1) == 0;

	errno = saved_errno;
	return none;
}

static void count_delivery(int fd, unsigned int cpu)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);

	if (getsockname(fd, (struct sockaddr *)&own, &size) || !port_in((struct sockaddr *)&own))
		return;
	if (core_of_port(port_in((struct sockaddr *)&own), cpus) == cpu) {
		count(&counters_of((int)cpu)->delivered);
	} else {
		count(&counters_of((int)cpu)->undelivered);
		look_again();
	}
}

/* From now on connect() only asks how far it has come; unless another thread has closed it. */
static void has_port(int fd, enum descriptor was, unsigned int cpu)
{
	uint8_t expected = (uint8_t)was;
	int saved_errno = errno;

	atomic_compare_exchange_strong(&descriptors[fd], &expected, PLAIN);
	if (page_is_open())
		count_delivery(fd, cpu);
	errno = saved_errno;
}

int flow_deliver_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	enum descriptor was = descriptor(fd);
	unsigned int cpu = (unsigned int)sched_getcpu();
	int result;

	if (cpu >= cpus || !is_tcp(fd))
		return real.connect(fd, addr, len);
	result = has_no_range(fd) ? call_on_cpu(real.connect, fd, addr, len, cpu) : real.connect(fd, addr, len);
	if (result == 0 || errno == EINPROGRESS || errno == EINTR)
		has_port(fd, was, cpu);
	return result;
}

int flow_deliver_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	unsigned int cpu = (unsigned int)sched_getcpu();

	if (cpu >= cpus || !is_tcp(fd) || !has_no_range(fd))
		return real.bind(fd, addr, len);
	return call_on_cpu(real.bind, fd, addr, len, cpu);
}
