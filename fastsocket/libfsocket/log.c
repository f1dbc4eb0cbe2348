// SPDX-License-Identifier: MIT
/*
 * Lines for people, on stderr. The application may close descriptor 2 and open a file of its own there. The reader of
 * stderr may have gone, or may not read. So the library writes only if descriptor 2 is still what it was when the
 * program started and takes the line at once. If the line causes a signal, the signal does not reach the application.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "real.h"

#define LINE_BYTES 512

static struct stat stderr_at_start;
static bool is_known;

static bool is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Is this a file that people read? Of sockets, only a Unix socket is: the journal's is one. */
static bool is_for_people(const struct stat *status)
{
	int domain = 0;
	socklen_t size = sizeof(domain);

	return !S_ISSOCK(status->st_mode) ||
	       (!real.getsockopt(STDERR_FILENO, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_UNIX);
}

void log_start(void)
{
	is_known = !fstat(STDERR_FILENO, &stderr_at_start) && is_for_people(&stderr_at_start);
}

static bool is_still_there(void)
{
	struct stat status;

	return is_known && !fstat(STDERR_FILENO, &status) && is_same_file(&status, &stderr_at_start);
}

static bool takes_a_line(void)
{
	struct pollfd out = { .fd = STDERR_FILENO, .events = POLLOUT };

	return real.poll(&out, 1, 0) == 1 && out.revents == POLLOUT;
}

static void write_line(const char *line, size_t length)
{
	/* a line that does not get through is lost */
	if (S_ISSOCK(stderr_at_start.st_mode))
		(void)!real.send(STDERR_FILENO, line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		(void)!real.write(STDERR_FILENO, line, length);
}

/* A pipe without a reader raises SIGPIPE, and a file at its limit SIGXFSZ: signal(7), setrlimit(2). */
static void write_quietly(const char *line, size_t length)
{
	struct timespec at_once = { 0 };
	sigset_t raised, before, pending;

	sigemptyset(&raised);
	sigaddset(&raised, SIGPIPE);
	sigaddset(&raised, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &raised, &before);
	sigpending(&pending);
	write_line(line, length);
	if (sigismember(&pending, SIGPIPE))
		sigdelset(&raised, SIGPIPE);
	if (sigismember(&pending, SIGXFSZ))
		sigdelset(&raised, SIGXFSZ);
	while (sigtimedwait(&raised, NULL, &at_once) > 0)
		;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static size_t made_printable(char *line)
{
	size_t length = 0;

	for (; line[length]; length++)
		if ((unsigned char)line[length] < ' ' || (unsigned char)line[length] >= 0x7f)
			line[length] = '?';
	return length;
}

void fsocket_log(const char *format, ...)
{
	int saved_errno = errno;
	char line[LINE_BYTES] = "libfsocket: ";
	size_t used = strlen(line);
	va_list arguments;

	if (is_still_there() && takes_a_line()) {
		va_start(arguments, format);
		vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
		va_end(arguments);
		used = made_printable(line);
		line[used++] = '\n';
		write_quietly(line, used);
	}
	errno = saved_errno;
}
