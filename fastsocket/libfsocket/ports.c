// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "common.h"
#include "ports.h"
#include "real.h"

#define LOOK_AGAIN_MS 1000
#define RANGE(low, high) ((uint32_t)(low) | (uint32_t)(high) << 16)

static _Atomic uint32_t local_ports = RANGE(32768, 60999); /* net.ipv4.ip_local_port_range */
static _Atomic uint64_t looked_ms;

/* ---- what the machine has ---- */

/*
 * Reads a file by system calls, not by libc's functions: these may be cancellation points, or replaced by another
 * library, and connect() must stay as it is for the application.
 */
static bool read_text(const char *path, char *text, size_t size)
{
	int saved_errno = errno;
	int fd = (int)real.syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long length = -1;

	if (fd >= 0) {
		length = real.syscall(SYS_read, fd, text, size - 1);
		real.syscall(SYS_close, fd);
	}
	text[length > 0 ? length : 0] = '\0';
	errno = saved_errno;
	return length > 0;
}

/* Reads the range of the calling thread's network namespace. If it cannot be read, the last one stays. */
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

void look_at_local_ports_again(void)
{
	if (now_ms() - atomic_load(&looked_ms) >= LOOK_AGAIN_MS)
		look_at_local_ports();
}

/*
 * One more than the highest possible CPU, which is the last number of a list such as 0-3,8-11. The kernel and every
 * program that steers count CPUs like this.
 */
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

unsigned int ports_start(void)
{
	look_at_local_ports();
	return possible_cpus();
}

/* ---- the next port ---- */

/*
 * Each thread walks through the ports of its CPU in an order of its own: a keyed permutation, with a new key each lap.
 * No port comes again before all others were used, so connections that are closed in the order in which they were
 * opened seldom clash. Knowing some ports does not tell the next one (RFC 6056).
 *
 * The kernel's own walk is predictable, so the kernel starts it elsewhere for each destination. This walk needs no
 * destination: the library must not read the address before the kernel has found it readable.
 */
#define ROUNDS 4

THREAD_LOCAL uint64_t keys[ROUNDS];
THREAD_LOCAL uint32_t position; /* a lap ends at each multiple of the size of the domain */

/* Every bit of the result depends on all of x. */
static uint32_t mixed(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
	return (uint32_t)(x >> 32);
}

/* A Feistel network: a permutation of the numbers of 2 * half_bits bits, whatever the keys. */
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

/* The next number below n in the walk. n itself: the kernel gave no key. */
static uint32_t next_number(uint32_t n)
{
	unsigned int half_bits = n > 1 ? (33U - (unsigned int)__builtin_clz(n - 1)) / 2 : 0;
	uint32_t domain = 1U << 2 * half_bits;
	uint32_t number;

	do {
		if (!(position % domain) &&
		    real.syscall(SYS_getrandom, keys, sizeof(keys), GRND_NONBLOCK) != (long)sizeof(keys))
			return n;
		number = permuted(position++ % domain, half_bits);
	} while (number >= n);
	return number;
}

void ports_after_fork(void)
{
	position = 0;
}

uint32_t next_port(unsigned int bits, unsigned int cpus)
{
	uint32_t stride = port_mask(cpus) + 1, range = atomic_load_explicit(&local_ports, memory_order_relaxed);
	uint32_t low = range & UINT16_MAX, high = range >> 16;
	uint32_t first = low + (bits - low) % stride;
	uint32_t n = first <= high ? (high - first) / stride + 1 : 0;
	uint32_t number = n ? next_number(n) : 0;

	return number < n ? first + number * stride : 0;
}
