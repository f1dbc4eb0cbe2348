// SPDX-License-Identifier: MIT
/* Another preloaded library: counts some calls that libfsocket stands before, too, and uses sockets before main(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int accepts, waits, closes;

#define NEXT(pointer, name)                                  \
	do {                                                 \
		void *symbol = dlsym(RTLD_NEXT, name);       \
		memcpy(&(pointer), &symbol, sizeof(symbol)); \
	} while (0)

__attribute__((constructor)) static void use_sockets(void)
{
	close(socket(AF_INET, SOCK_STREAM, 0));
}

int accept4(int fd, struct sockaddr *restrict addr, socklen_t *restrict len, int flags)
{
	int (*next)(int, struct sockaddr *, socklen_t *, int);

	NEXT(next, "accept4");
	accepts++;
	return next(fd, addr, len, flags);
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout)
{
	int (*next)(int, struct epoll_event *, int, int);

	NEXT(next, "epoll_wait");
	waits++;
	return next(epfd, events, room, timeout);
}

int close(int fd)
{
	int (*next)(int);

	NEXT(next, "close");
	closes++;
	return next(fd);
}

/* For the application, which finds it by its name. */
void counted(int *into)
{
	into[0] = accepts;
	into[1] = waits;
	into[2] = closes;
}
