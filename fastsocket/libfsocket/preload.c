// SPDX-License-Identifier: MIT
/* The libc calls we stand in front of. Each does the application's own call first or alone; the rest is elsewhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fsocket.h"

#define INTERPOSED __attribute__((visibility("default")))

static bool enabled;

__attribute__((constructor)) static void load(void)
{
	need_real_calls();
	read_settings();
	if (settings.flow_deliver)
		flow_deliver_start();
	enabled = settings.listen_table || settings.fast_epoll || settings.flow_deliver;
	listeners_start();
	if (!enabled)
		return;
	page_start();
	listeners_inherit();
}

/* ---- sockets -------------------------------------------------------------------------------------------------- */

static bool is_tcp(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP);
}

INTERPOSED int socket(int domain, int type, int protocol)
{
	int fd;

	need_real_calls();
	fd = real.socket(domain, type, protocol);
	if (fd >= 0)
		set_descriptor(fd, is_tcp(domain, type, protocol) ? OPENED : PLAIN); /* until it listens */
	return fd;
}

static bool may_choose_port(int fd)
{
	enum descriptor kind = descriptor(fd);

	return settings.flow_deliver && (kind == OPENED || kind == DELIVERED || kind == UNKNOWN);
}

INTERPOSED int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	need_real_calls();
	return may_choose_port(fd) ? flow_deliver_bind(fd, addr, len) : real.bind(fd, addr, len);
}

INTERPOSED int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	need_real_calls();
	return may_choose_port(fd) ? flow_deliver_connect(fd, addr, len) : real.connect(fd, addr, len);
}

INTERPOSED int listen(int fd, int backlog)
{
	int result;

	need_real_calls();
	flow_deliver_any_port(fd);
	result = real.listen(fd, backlog);
	if (result == 0 && enabled && !listeners_listen(fd, backlog)) {
		real.shutdown(fd, SHUT_RD);
		errno = EOPNOTSUPP;
		return -1;
	}
	return result;
}

static int accepted(int fd, bool from_tcp)
{
	if (fd >= 0)
		set_descriptor(fd, from_tcp && settings.fast_epoll ? FRESH : PLAIN);
	return fd;
}

INTERPOSED int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct listener *l = find_listener(fd);

	need_real_calls();
	if (likely(!l))
		return accepted(real.accept4(fd, addr, len, flags), false);
	return accepted(llt_accept(l, fd, addr, len, flags), true);
}

INTERPOSED int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct listener *l = find_listener(fd);

	need_real_calls();
	if (likely(!l))
		return accepted(real.accept(fd, addr, len), false);
	return accepted(llt_accept(l, fd, addr, len, 0), true);
}

/* The application is told what it set itself. */
INTERPOSED int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
	struct listener *l = find_listener(fd);
	int result;

	need_real_calls();
	result = real.getsockopt(fd, level, name, value, size);
	if (!likely(!l) && result == 0 && level == SOL_SOCKET && *size == sizeof(int) && l->cloned) {
		int own = name == SO_REUSEPORT ? l->own_reuseport : -1;

		if (name == SO_REUSEPORT || name == SO_INCOMING_CPU)
			memcpy(value, &own, sizeof(own));
	}
	if (!likely(!settings.flow_deliver) && result == 0 && flow_deliver_hides(fd, level, name))
		memset(value, 0, *size);
	return result;
}

INTERPOSED int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	struct listener *l = find_listener(fd);
	int result;

	need_real_calls();
	result = real.setsockopt(fd, level, name, value, size);
	if (!likely(!l) && result == 0)
		llt_setsockopt(l, level, name, value, size);
	if (!likely(!settings.flow_deliver) && result == 0)
		flow_deliver_setsockopt(fd, level, name);
	return result;
}

INTERPOSED int shutdown(int fd, int how)
{
	struct listener *l = find_listener(fd);
	int result;

	need_real_calls();
	result = real.shutdown(fd, how);
	if (!likely(!l) && result == 0)
		llt_shutdown(l, how);
	return result;
}

INTERPOSED ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	need_real_calls();
	if (!likely(!message || !message->msg_control) && enabled)
		succession_sends(message);
	return real.sendmsg(fd, message, flags);
}

INTERPOSED ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t received;

	need_real_calls();
	received = real.recvmsg(fd, message, flags);
	if (!likely(received < 0 || !message->msg_control) && enabled)
		succession_received(message);
	return received;
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

static int epoll_created(int epfd)
{
	if (epfd >= 0) {
		set_descriptor(epfd, PLAIN);
		fast_epoll_created(epfd);
	}
	return epfd;
}

INTERPOSED int epoll_create(int size)
{
	need_real_calls();
	return epoll_created(real.epoll_create(size));
}

INTERPOSED int epoll_create1(int flags)
{
	need_real_calls();
	return epoll_created(real.epoll_create1(flags));
}

INTERPOSED int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	enum descriptor kind = descriptor(fd);
	struct listener *l = NULL;
	int result;

	need_real_calls();
	if (settings.fast_epoll && fast_epoll_defers(epfd, op, fd, event))
		return 0;
	result = real.epoll_ctl(epfd, op, fd, event);
	if (likely(kind != LISTENER && (kind != UNKNOWN || op != EPOLL_CTL_ADD)) || result || !enabled)
		return result;
	l = kind == LISTENER ? find_listener(fd) : listeners_discover(fd, INHERITED_BY_EXEC);
	if (l)
		llt_epoll_ctl(l, epfd, op, event);
	return result;
}

/* Does the library have anything to do when this thread waits? */
static bool attends(void)
{
	return enabled && (settings.fast_epoll || llt_tends());
}

INTERPOSED int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout)
{
	struct wait wait;

	need_real_calls();
	if (!attends())
		return real.epoll_wait(epfd, events, room, timeout);
	wait = (struct wait){ .epfd = epfd, .events = events, .room = room, .timeout_ms = timeout };
	return wait_for_events(&wait);
}

INTERPOSED int epoll_pwait(int epfd, struct epoll_event *events, int room, int timeout, const sigset_t *mask)
{
	struct wait wait;

	need_real_calls();
	if (!attends())
		return real.epoll_pwait(epfd, events, room, timeout, mask);
	wait = (struct wait){ .epfd = epfd, .events = events, .room = room, .timeout_ms = timeout, .has_mask = true,
			      .mask = mask };
	return wait_for_events(&wait);
}

INTERPOSED int epoll_pwait2(int epfd, struct epoll_event *events, int room, const struct timespec *timeout,
			    const sigset_t *mask)
{
	struct wait wait;

	need_real_calls();
	if (!real.epoll_pwait2) { /* glibc before 2.35 */
		errno = ENOSYS;
		return -1;
	}
	if (!attends())
		return real.epoll_pwait2(epfd, events, room, timeout, mask);
	wait = (struct wait){ .epfd = epfd, .events = events, .room = room, .in_ns = true, .timeout = timeout,
			      .has_mask = true, .mask = mask };
	return wait_for_events(&wait);
}

INTERPOSED int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	need_real_calls();
	if (settings.fast_epoll)
		fast_epoll_polls(fds, n);
	return real.poll(fds, n, timeout);
}

INTERPOSED int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	need_real_calls();
	if (settings.fast_epoll)
		fast_epoll_polls(fds, n);
	return real.ppoll(fds, n, timeout, mask);
}

INTERPOSED int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
		      struct timeval *restrict timeout)
{
	need_real_calls();
	if (settings.fast_epoll)
		fast_epoll_polls(NULL, 0);
	return real.select(n, in, out, except, timeout);
}

INTERPOSED int pselect(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
		       const struct timespec *restrict timeout, const sigset_t *restrict mask)
{
	need_real_calls();
	if (settings.fast_epoll)
		fast_epoll_polls(NULL, 0);
	return real.pselect(n, in, out, except, timeout, mask);
}

/* ---- descriptors ---------------------------------------------------------------------------------------------- */

INTERPOSED int close(int fd)
{
	need_real_calls();
	descriptor_closing(fd);
	return real.close(fd);
}

/* The duplicate is the listener, too; what is put off until later has to be done before there are two names. */
static void before_duplicate(int fd)
{
	if (settings.fast_epoll) {
		fast_epoll_settle(fd);
		fast_epoll_shared(fd);
	}
	if (settings.flow_deliver)
		flow_deliver_shared(fd);
}

/* A number that is still a listener's or a connection's belongs to the parent, whose memory a vfork()ed child borrows. */
static int duplicated(int from, int to)
{
	if (to >= 0 && likely(descriptor(to) < LISTENER || tables_are_ours())) {
		set_descriptor(to, UNKNOWN);
		if (!likely(descriptor(from) != LISTENER))
			listeners_duplicated(from, to);
	}
	return to;
}

/* Only a dup that succeeded has closed its target, and by then the target is the application's: forget it. */
static int duplicated_over(int from, int to, int result)
{
	if (result < 0 || from == to)
		return result;
	descriptor_closing(to);
	return duplicated(from, result);
}

INTERPOSED int dup(int fd)
{
	need_real_calls();
	before_duplicate(fd);
	return duplicated(fd, real.dup(fd));
}

INTERPOSED int dup2(int from, int to)
{
	need_real_calls();
	before_duplicate(from);
	return duplicated_over(from, to, real.dup2(from, to));
}

INTERPOSED int dup3(int from, int to, int flags)
{
	need_real_calls();
	before_duplicate(from);
	return duplicated_over(from, to, real.dup3(from, to, flags));
}

/* Whatever the command takes, it fits a pointer: libc's own definition reads it the same way. */
#define FORWARD_FCNTL(name)                                                             \
	INTERPOSED int name(int fd, int command, ...)                                   \
	{                                                                               \
		va_list arguments;                                                      \
		void *argument;                                                         \
		int result;                                                             \
                                                                                        \
		va_start(arguments, command);                                           \
		argument = va_arg(arguments, void *);                                   \
		va_end(arguments);                                                      \
		need_real_calls();                                                      \
		if (likely(command != F_DUPFD && command != F_DUPFD_CLOEXEC)) {         \
			result = real.name(fd, command, argument);                      \
			if (command == F_SETFL)                                         \
				listeners_flags_changed(fd);                            \
			return result;                                                  \
		}                                                                       \
		before_duplicate(fd);                                                   \
		result = real.name(fd, command, argument);                              \
		return duplicated(fd, result);                                          \
	}
FORWARD_FCNTL(fcntl)
FORWARD_FCNTL(fcntl64)

INTERPOSED int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	need_real_calls();
	result = real.ioctl(fd, request, argument);
	if (request == FIONBIO)
		listeners_flags_changed(fd);
	return result;
}

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

INTERPOSED int close_range(unsigned int first, unsigned int last, int flags)
{
	need_real_calls();
	if (!real.close_range) { /* glibc before 2.34 */
		errno = ENOSYS;
		return -1;
	}
	if (!((unsigned int)flags & ~CLOSE_RANGE_UNSHARE)) /* any other flag closes nothing now */
		descriptors_closing(first, last);
	return real.close_range(first, last, flags);
}

INTERPOSED void closefrom(int first)
{
	need_real_calls();
	descriptors_closing((unsigned int)(first < 0 ? 0 : first), UINT_MAX);
	if (real.closefrom) /* glibc before 2.34 has none, and then nobody was linked against it */
		real.closefrom(first);
}

/* ---- programs ------------------------------------------------------------------------------------------------- */

#define MAX_ENVIRONMENT 4096

static size_t length_of(char *const environment[])
{
	size_t n = 0;

	while (environment && environment[n])
		n++;
	return n;
}

/* No allocation: this is called between fork() and exec, too. */
INTERPOSED int execve(const char *path, char *const arguments[], char *const environment[])
{
	need_real_calls();
	/* Without a page no listener of this process has been accelerated. */
	if (page_is_open() && length_of(environment) < MAX_ENVIRONMENT && succession_lacks(environment)) {
		char *extended[MAX_ENVIRONMENT + MAX_SETTINGS_VARIABLES + 1];

		succession_extend(extended, environment);
		return real.execve(path, arguments, extended);
	}
	return real.execve(path, arguments, environment);
}
