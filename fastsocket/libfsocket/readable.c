// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "readable.h"

#define PAGE_BYTES 4096 /* the smallest page of any processor */

/*
 * Can the kernel read the eight bytes there? The kernel reads them before it finds the rest of the call wrong. So
 * nothing happens but an error: EFAULT if it cannot read them, else EINVAL. Source: Linux kernel/signal.c,
 * rt_sigprocmask().
 */
static bool kernel_can_read(uintptr_t address)
{
	const int no_such_way = -1;

	return syscall(SYS_rt_sigprocmask, no_such_way, address, NULL, sizeof(uint64_t)) && errno == EINVAL;
}

/* Tries one word in each page of the memory, and the last word. */
bool is_readable(const void *memory, size_t size)
{
	uintptr_t address = (uintptr_t)memory, end = address + size;
	int saved_errno = errno;
	bool readable = end >= address && (!size || kernel_can_read(end - sizeof(uint64_t)));

	for (; readable && address < end; address = (address / PAGE_BYTES + 1) * PAGE_BYTES)
		readable = end - address < sizeof(uint64_t) || kernel_can_read(address);
	errno = saved_errno;
	return readable;
}
