// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "readable.h"
#include "real.h"

#define PAGE_BYTES 4096 /* the smallest page of any processor */

/*
 * Can the kernel read the eight bytes there? The kernel reads them before it finds the rest of the call wrong. So
 * nothing happens but an error: EFAULT if it cannot read them, else EINVAL. Source: Linux kernel/signal.c,
 * rt_sigprocmask().
 */
static bool kernel_can_read(uintptr_t address)
{
	const int no_such_way = -1;

	return real.syscall(SYS_rt_sigprocmask, no_such_way, address, NULL, sizeof(uint64_t)) && errno == EINVAL;
}

/* Tries the last word, and the first word in each page before that. */
bool is_readable(const void *memory, size_t size)
{
	uintptr_t address = (uintptr_t)memory, last = address + size - sizeof(uint64_t);
	int saved_errno = errno;
	bool readable = !size || (last >= address && kernel_can_read(last));

	for (; readable && size && address / PAGE_BYTES < last / PAGE_BYTES;
	     address = (address / PAGE_BYTES + 1) * PAGE_BYTES)
		readable = kernel_can_read(address);
	errno = saved_errno;
	return readable;
}
