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

/* A call that may choose a port, and how it went with the last port of ours that it was given. */
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

/* What the kernel answers where a port of its choice is taken; it has read the address before. */
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

/* Has one of our ports settled it? Then there is a result, and errno. */
static bool tried(struct attempt *attempt, unsigned int bits, int tries)
{
	int saved_errno = errno;

	while (tries-- && (attempt->port = next_port(bits)) && confine(attempt->fd, attempt->port)) {
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
	look_again();
	return attempt->call(attempt->fd, attempt->addr, attempt->len);
}

static bool is_tcp(int fd)
{
	int saved_errno = errno;
	bool is = get_int(fd, SOL_SOCKET, SO_TYPE, -1) == SOCK_STREAM &&
	          get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;

	errno = saved_errno;
	return is;
}

/*
 * A socket that we saw being made has no range unless we saw the application set it. Of another one the kernel is
 * asked, who may as well know of no such thing.
 */
static bool has_no_range(int fd)
{
	int saved_errno = errno;
	bool none = get_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, -1) == 0;

	errno = saved_errno;
	return none;
}

static bool may_be_given_port(int fd, enum descriptor kind)
{
	return kind == OPENED || (is_tcp(fd) && has_no_range(fd));
}

/* What we asked for is what the kernel gave, unless its range has changed: look from time to time. */
#define LOOK_EVERY 16
THREAD_LOCAL unsigned int until_look;

static uint32_t port_of(int fd)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);

	return getsockname(fd, (struct sockaddr *)&own, &size) ? 0 : port_in((struct sockaddr *)&own);
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
		look_again();
	if (port && page_is_open())
		count(core_of_port((uint16_t)port, cpus) == cpu ? &counters_of((int)cpu)->delivered
		                                                : &counters_of((int)cpu)->undelivered);
	errno = saved_errno;
}

/* From now on connect() only asks how far it has come; unless another thread has closed the descriptor. */
static void become(int fd, enum descriptor was, enum descriptor kind)
{
	uint8_t expected = (uint8_t)was;

	if ((unsigned int)fd < MAX_FDS)
		atomic_compare_exchange_strong(&descriptors[fd], &expected, (uint8_t)kind);
}

static bool has_port(int result)
{
	return result == 0 || errno == EINPROGRESS || errno == EINTR;
}

/*
 * To take the range off a socket again is a system call. On one that we saw being made it stays until the application
 * could notice: getsockopt() says that there is none, and what else comes to it goes through the functions below.
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

/* It was disconnected, and the one port that it may use is taken. */
static int connect_delivered(int fd, const struct sockaddr *addr, socklen_t len)
{
	int saved_errno = errno;
	int result = real.connect(fd, addr, len);

	if (!likely(result == 0 || errno != EADDRNOTAVAIL)) {
		release(fd);
		errno = saved_errno;
		result = real.connect(fd, addr, len);
	}
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
