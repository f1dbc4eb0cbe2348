// SPDX-License-Identifier: MIT
/* The calls behind ours, and the one way in which the library speaks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
	RESOLVE(close); /* last: it tells that all are there */
#undef RESOLVE
}

static bool stderr_is_for_people(void)
{
	int domain = 0;
	socklen_t size = sizeof(domain);
	struct stat status;

	if (fstat(STDERR_FILENO, &status))
		return false;
	if (!S_ISSOCK(status.st_mode))
		return true;
	/* A daemon may have closed fd 2 and got a client there; the journal, though, is a Unix socket. */
	return !real.getsockopt(STDERR_FILENO, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_UNIX;
}

void fsocket_log(const char *format, ...)
{
	int saved_errno = errno;
	char line[512] = "libfsocket: ";
	size_t used = strlen(line);
	va_list arguments;

	if (stderr_is_for_people()) {
		va_start(arguments, format);
		vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
		va_end(arguments);
		strcat(line, "\n");
		/* Nothing can be done about a log line that does not get through. */
		if (write(STDERR_FILENO, line, strlen(line)) < 0)
			errno = saved_errno;
	}
	errno = saved_errno;
}
