// SPDX-License-Identifier: MIT
/* The calls behind ours. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include "fsocket.h"

struct real_calls real;

void find_real_calls(void)
{
	/* POSIX lets dlsym() return functions as object pointers; the copy avoids a cast that ISO C forbids. */
#define RESOLVE(name)                                         \
	do {                                                  \
		void *symbol = dlsym(RTLD_NEXT, #name);       \
		memcpy(&real.name, &symbol, sizeof(symbol));  \
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
