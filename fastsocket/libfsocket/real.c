// SPDX-License-Identifier: MIT
/* The calls behind ours. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#define PAGE_BYTES 4096 /* the smallest there is */

struct real_calls real;

void find_real_calls(void)
{
	/* POSIX lets dlsym() return functions as object pointers; the copy avoids a cast that ISO C forbids. */
#define RESOLVE(name)                                        \
	do {                                                 \
		void *symbol = dlsym(RTLD_NEXT, #name);      \
		memcpy(&real.name, &symbol, sizeof(symbol)); \
	} while (0)
	RESOLVE(socket);
	RESOLVE(bind);
	RESOLVE(connect);
	RESOLVE(listen);
	RESOLVE(accept);
	RESOLVE(accept4);
	RESOLVE(getsockopt);
	RESOLVE(setsockopt);
	RESOLVE(sendmsg);
	RESOLVE(recvmsg);
	RESOLVE(epoll_create);
	RESOLVE(epoll_create1);
	RESOLVE(epoll_ctl);
	RESOLVE(epoll_wait);
	RESOLVE(epoll_pwait);
	RESOLVE(epoll_pwait2);
	RESOLVE(poll);
	RESOLVE(ppoll);
	RESOLVE(select);
	RESOLVE(pselect);
	RESOLVE(shutdown);
	RESOLVE(dup);
	RESOLVE(dup2);
	RESOLVE(dup3);
	RESOLVE(fcntl);
	RESOLVE(fcntl64);
	RESOLVE(ioctl);
	RESOLVE(execve);
	RESOLVE(close_range);
	RESOLVE(closefrom);
	RESOLVE(execveat);
	RESOLVE(fexecve);
	RESOLVE(execvpe);
	RESOLVE(posix_spawn);
	RESOLVE(posix_spawnp);
	RESOLVE(system);
	RESOLVE(popen);
	RESOLVE(pthread_create);
	RESOLVE(sched_getaffinity);
	RESOLVE(pthread_getaffinity_np);
	RESOLVE(unshare);
	RESOLVE(prctl);
	RESOLVE(close); /* last: it tells that all are there */
#undef RESOLVE
}

/*
 * Can the kernel read the eight bytes there? It reads them before it sees that the rest of the call is wrong, so nothing
 * happens but an error: EFAULT, or EINVAL. Source: Linux kernel/signal.c, rt_sigprocmask().
 */
static bool kernel_can_read(uintptr_t address)
{
	const int no_such_way = -1;

	return syscall(SYS_rt_sigprocmask, no_such_way, address, NULL, sizeof(uint64_t)) && errno == EINVAL;
}

/* In words of eight bytes: one in each page of the memory, and the last one. */
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
