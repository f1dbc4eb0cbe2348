// SPDX-License-Identifier: MIT
/* Another preloaded library. While it is armed, the next fcntl() that asks for flags is interrupted by SIGUSR1. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

atomic_int armed;

int fcntl(int fd, int command, ...)
{
	int (*next)(int, int, ...);
	void *symbol = dlsym(RTLD_NEXT, "fcntl"), *argument;
	va_list arguments;

	va_start(arguments, command);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (command == F_GETFL && atomic_exchange(&armed, 0))
		kill(getpid(), SIGUSR1);
	memcpy(&next, &symbol, sizeof(next));
	return next(fd, command, argument);
}
