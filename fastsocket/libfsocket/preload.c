// SPDX-License-Identifier: MIT
/* The libc calls we stand in front of. Each does the application's own call first or alone; the rest is elsewhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsocket.h"

static bool enabled;

__attribute__((constructor)) static void load(void)
{
	const char *mode = getenv("FSOCKET");

	need_real_calls();
	llt_configure();
	enabled = !mode || strcmp(mode, "off") != 0;
}

__attribute__((visibility("default"))) int listen(int fd, int backlog)
{
	int result;

	need_real_calls();
	result = real.listen(fd, backlog);
	if (result == 0 && enabled) {
		int saved_errno = errno;

		llt_listen(fd, backlog);
		errno = saved_errno;
	}
	return result;
}

__attribute__((visibility("default"))) int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct listener *l = llt_find(fd);

	need_real_calls();
	if (likely(!l))
		return real.accept4(fd, addr, len, flags);
	return llt_accept(l, fd, addr, len, flags);
}

__attribute__((visibility("default"))) int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct listener *l = llt_find(fd);

	need_real_calls();
	if (likely(!l))
		return real.accept(fd, addr, len);
	return llt_accept(l, fd, addr, len, 0);
}

__attribute__((visibility("default"))) int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	struct listener *l = llt_find(fd);
	int result;

	need_real_calls();
	result = real.epoll_ctl(epfd, op, fd, event);
	if (!likely(!l) && result == 0) {
		int saved_errno = errno;

		llt_epoll_ctl(l, epfd, op, event);
		errno = saved_errno;
	}
	return result;
}

__attribute__((visibility("default"))) int shutdown(int fd, int how)
{
	struct listener *l = llt_find(fd);
	int result;

	need_real_calls();
	result = real.shutdown(fd, how);
	if (!likely(!l) && result == 0) {
		int saved_errno = errno;

		llt_shutdown(l, how);
		errno = saved_errno;
	}
	return result;
}

static void let_go_of(unsigned int first, unsigned int last)
{
	int saved_errno = errno;

	llt_closing(first, last);
	errno = saved_errno;
}

__attribute__((visibility("default"))) int close(int fd)
{
	need_real_calls();
	let_go_of((unsigned int)fd, (unsigned int)fd);
	return real.close(fd);
}

/* Only a dup that succeeded has closed its target, and by then the target is the application's: forget it. */
static int dup_over(int result, int from, int to)
{
	if (result >= 0 && from != to)
		let_go_of((unsigned int)to, (unsigned int)to);
	return result;
}

__attribute__((visibility("default"))) int dup2(int from, int to)
{
	need_real_calls();
	return dup_over(real.dup2(from, to), from, to);
}

__attribute__((visibility("default"))) int dup3(int from, int to, int flags)
{
	need_real_calls();
	return dup_over(real.dup3(from, to, flags), from, to);
}

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

__attribute__((visibility("default"))) int close_range(unsigned int first, unsigned int last, int flags)
{
	need_real_calls();
	if (!real.close_range) { /* glibc before 2.34 */
		errno = ENOSYS;
		return -1;
	}
	if (!((unsigned int)flags & ~CLOSE_RANGE_UNSHARE)) /* any other flag closes nothing now */
		let_go_of(first, last);
	return real.close_range(first, last, flags);
}

__attribute__((visibility("default"))) void closefrom(int first)
{
	need_real_calls();
	let_go_of((unsigned int)(first < 0 ? 0 : first), UINT_MAX);
	if (real.closefrom) /* glibc before 2.34 has none, and then nobody was linked against it */
		real.closefrom(first);
}
