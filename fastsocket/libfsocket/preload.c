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
#include <sys/prctl.h>
#include <unistd.h>

#include "fsocket.h"

#define INTERPOSED __attribute__((visibility("default")))

static bool enabled;

__attribute__((constructor)) static void load(void)
{
	need_real_calls();
	log_start();
	affinity_start();
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
		new_descriptor(fd, is_tcp(domain, type, protocol) ? OPENED : PLAIN); /* until it listens */
	return fd;
}

static bool may_choose_port(int fd)
{
	enum descriptor kind = descriptor(fd);

	return settings.flow_deliver && (kind == OPENED || kind == DELIVERED || kind == UNKNOWN || kind == GUARDED);
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
		new_descriptor(fd, from_tcp && settings.fast_epoll ? FRESH : PLAIN);
	return fd;
}

static struct listener *listener_to_accept_from(int fd)
{
	need_real_calls();
	if (likely(descriptor(fd) != LISTENER))
		return NULL;
	notice_copy();
	return find_listener(fd);
}

INTERPOSED int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct listener *l = listener_to_accept_from(fd);

	if (likely(!l))
		return accepted(real.accept4(fd, addr, len, flags), false);
	return accepted(accept_any(l, fd, addr, len, flags), true);
}

INTERPOSED int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct listener *l = listener_to_accept_from(fd);

	if (likely(!l))
		return accepted(real.accept(fd, addr, len), false);
	return accepted(accept_any(l, fd, addr, len, 0), true);
}

/* The application is told what it set itself. */
INTERPOSED int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
	struct listener *l = find_listener(fd);
	int result;

	need_real_calls();
	result = real.getsockopt(fd, level, name, value, size);
	if (!likely(!l) && result == 0 && level == SOL_SOCKET && *size == sizeof(int) && l->cloned) {
		int own = name == SO_REUSEPORT ? l->own_reuseport : l->own_incoming_cpu;

		if (name == SO_REUSEPORT || name == SO_INCOMING_CPU)
			memcpy(value, &own, sizeof(own));
	}
	if (!likely(!settings.flow_deliver) && result == 0 && flow_deliver_hides(fd, level, name))
		memset(value, 0, *size);
	return result;
}

/* Of a socket that may listen later: can a clone of it get this, too? */
static void note_option(int fd, int level, int name)
{
	enum descriptor kind = descriptor(fd);
	int saved_errno = errno;

	if (enabled && (kind == OPENED || kind == UNKNOWN) && !option_can_be_copied(fd, level, name) &&
	    get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP)
		set_descriptor(fd, GUARDED);
	errno = saved_errno;
}

INTERPOSED int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	struct listener *l = find_listener(fd);
	int result;

	need_real_calls();
	result = real.setsockopt(fd, level, name, value, size);
	if (!likely(!l) && result == 0)
		clones_setsockopt(l, level, name, value, size);
	else if (result == 0 && descriptor(fd) != PLAIN)
		note_option(fd, level, name);
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
		clones_shutdown(l, how);
	return result;
}

INTERPOSED ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t sent;

	need_real_calls();
	sent = real.sendmsg(fd, message, flags);
	if (!likely(sent < 0 || !message->msg_control) && enabled)
		succession_sent(message);
	return sent;
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
		new_descriptor(epfd, PLAIN);
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
	if (likely(kind != LISTENER && ((kind != UNKNOWN && kind != WATCHING) || op != EPOLL_CTL_ADD)) || result ||
	    !enabled)
		return result;
	if (kind == WATCHING)
		set_descriptor(epfd, WATCHING); /* whoever waits for this epoll waits for that one */
	else if ((l = kind == LISTENER ? find_listener(fd) : listeners_discover(fd, INHERITED_BY_EXEC)))
		watch_changed(l, epfd, op, fd, event);
	return result;
}

/* Does the library have anything to do when this thread waits? */
static bool attends(int epfd)
{
	return !likely(descriptor(epfd) != WATCHING && !settings.fast_epoll) && !seccomp_was_installed();
}

INTERPOSED int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout)
{
	struct wait wait;

	need_real_calls();
	if (likely(!attends(epfd)))
		return real.epoll_wait(epfd, events, room, timeout);
	wait = (struct wait){ .epfd = epfd, .events = events, .room = room, .timeout_ms = timeout };
	return wait_for_events(&wait);
}

INTERPOSED int epoll_pwait(int epfd, struct epoll_event *events, int room, int timeout, const sigset_t *mask)
{
	struct wait wait;

	need_real_calls();
	if (likely(!attends(epfd)))
		return real.epoll_pwait(epfd, events, room, timeout, mask);
	wait = (struct wait){
		.epfd = epfd, .events = events, .room = room, .timeout_ms = timeout, .has_mask = true, .mask = mask
	};
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
	if (likely(!attends(epfd)) || !is_time(timeout))
		return real.epoll_pwait2(epfd, events, room, timeout, mask);
	wait = (struct wait){ .epfd = epfd,
	                      .events = events,
	                      .room = room,
	                      .in_ns = true,
	                      .timeout = timeout,
	                      .has_mask = true,
	                      .mask = mask };
	return wait_for_events(&wait);
}

INTERPOSED int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec until = { .tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L };

	need_real_calls();
	if (settings.fast_epoll && n <= MAX_FDS && is_readable(fds, n * sizeof(*fds)))
		fast_epoll_polls(fds, n);
	if (likely(!enabled || !polls_a_listener(fds, n)))
		return real.poll(fds, n, timeout);
	return poll_in_slices(fds, n, timeout < 0 ? NULL : &until, NULL);
}

INTERPOSED int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	need_real_calls();
	if (settings.fast_epoll && n <= MAX_FDS && is_readable(fds, n * sizeof(*fds)))
		fast_epoll_polls(fds, n);
	if (likely(!enabled || !polls_a_listener(fds, n)) || !is_time(timeout))
		return real.ppoll(fds, n, timeout, mask);
	return poll_in_slices(fds, n, timeout, mask);
}

/* What a program that was built with _FORTIFY_SOURCE calls instead; libc looks at the size of its array. */
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t size);
void __chk_fail(void) __attribute__((noreturn));

INTERPOSED int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
	if (size / sizeof(*fds) < n)
		__chk_fail();
	return poll(fds, n, timeout);
}

INTERPOSED int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
                           size_t size)
{
	if (size / sizeof(*fds) < n)
		__chk_fail();
	return ppoll(fds, n, timeout, mask);
}

static bool are_sets(int n, const fd_set *out, const fd_set *except)
{
	return (!out || is_set(n, out)) && (!except || is_set(n, except));
}

static bool is_time_for_select(const struct timeval *time)
{
	return !time ||
	       (is_readable(time, sizeof(*time)) && time->tv_sec >= 0 && time->tv_usec >= 0 && time->tv_usec < 1000000);
}

/* Linux writes the time that is left (select(2)). */
static int select_until(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
	struct timespec until = { 0 }, began, ended;
	int64_t left;
	int ready;

	if (!timeout)
		return select_in_slices(n, in, out, except, NULL, NULL);
	until = (struct timespec){ .tv_sec = timeout->tv_sec, .tv_nsec = timeout->tv_usec * 1000 };
	clock_gettime(CLOCK_MONOTONIC, &began);
	ready = select_in_slices(n, in, out, except, &until, NULL);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	left = (until.tv_sec + began.tv_sec - ended.tv_sec) * 1000000 +
	       (until.tv_nsec + began.tv_nsec - ended.tv_nsec) / 1000;
	left = left > 0 ? left : 0;
	*timeout = (struct timeval){ .tv_sec = left / 1000000, .tv_usec = left % 1000000 };
	return ready;
}

INTERPOSED int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
                      struct timeval *restrict timeout)
{
	need_real_calls();
	if (settings.fast_epoll)
		fast_epoll_polls(NULL, 0);
	if (likely(!in || !enabled || !selects_a_listener(n, in)) || !are_sets(n, out, except) ||
	    !is_time_for_select(timeout))
		return real.select(n, in, out, except, timeout);
	return select_until(n, in, out, except, timeout);
}

INTERPOSED int pselect(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
                       const struct timespec *restrict timeout, const sigset_t *restrict mask)
{
	need_real_calls();
	if (settings.fast_epoll)
		fast_epoll_polls(NULL, 0);
	if (likely(!in || !enabled || !selects_a_listener(n, in)) || !are_sets(n, out, except) || !is_time(timeout))
		return real.pselect(n, in, out, except, timeout, mask);
	return select_in_slices(n, in, out, except, timeout, mask);
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

static int duplicated(int from, int to)
{
	if (to < 0)
		return to;
	new_descriptor(to, descriptor(from) == GUARDED || descriptor(from) == WATCHING ? descriptor(from) : UNKNOWN);
	if (!likely(descriptor(from) != LISTENER))
		listeners_duplicated(from, to);
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
#define FORWARD_FCNTL(name)                                                     \
	INTERPOSED int name(int fd, int command, ...)                           \
	{                                                                       \
		va_list arguments;                                              \
		void *argument;                                                 \
		int result;                                                     \
                                                                                \
		va_start(arguments, command);                                   \
		argument = va_arg(arguments, void *);                           \
		va_end(arguments);                                              \
		need_real_calls();                                              \
		if (likely(command != F_DUPFD && command != F_DUPFD_CLOEXEC)) { \
			result = real.name(fd, command, argument);              \
			if (command == F_SETFL)                                 \
				listeners_flags_changed(fd);                    \
			return result;                                          \
		}                                                               \
		before_duplicate(fd);                                           \
		result = real.name(fd, command, argument);                      \
		return duplicated(fd, result);                                  \
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

/* The only thread of a process shares its table with no other. */
static void gets_own_table(void)
{
	if (!is_only_thread() && tables_are_ours())
		has_own_table = true;
}

INTERPOSED int unshare(int flags)
{
	int result;

	need_real_calls();
	result = real.unshare(flags);
	if (result == 0 && flags & CLONE_FILES)
		gets_own_table();
	return result;
}

INTERPOSED int close_range(unsigned int first, unsigned int last, int flags)
{
	need_real_calls();
	if (!real.close_range) { /* glibc before 2.34 */
		errno = ENOSYS;
		return -1;
	}
	if ((unsigned int)flags & CLOSE_RANGE_UNSHARE)
		gets_own_table();
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

/* ---- threads, and seccomp -------------------------------------------------------------------------------------- */

struct new_thread {
	void *(*run)(void *);
	void *argument;
};

static void *run_with_own_table(void *argument)
{
	struct new_thread new = *(struct new_thread *)argument;

	free(argument);
	has_own_table = true;
	return new.run(new.argument);
}

/* A thread shares the descriptor table of the thread that makes it. */
static int create_with_own_table(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                                 void *argument)
{
	struct new_thread *new = malloc(sizeof(*new));
	int result;

	if (!new)
		return EAGAIN;
	*new = (struct new_thread){ run, argument };
	result = real.pthread_create(thread, attributes, run_with_own_table, new);
	if (result)
		free(new);
	return result;
}

INTERPOSED int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                              void *(*run)(void *), void *restrict argument)
{
	bool lifted;
	int result;

	need_real_calls();
	lifted = affinity_lift();
	result = has_own_table ? create_with_own_table(thread, attributes, run, argument)
	                       : real.pthread_create(thread, attributes, run, argument);
	affinity_put_back(lifted);
	return result;
}

static void hide_pin(size_t size, cpu_set_t *cpus)
{
	cpu_set_t own;

	if (!affinity_is_hidden(&own))
		return;
	memset(cpus, 0, size);
	memcpy(cpus, &own, size < sizeof(own) ? size : sizeof(own));
}

/* The application is told of the CPUs that it gave the thread itself. */
INTERPOSED int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus)
{
	int result;

	need_real_calls();
	result = real.sched_getaffinity(pid, size, cpus);
	if (result >= 0 && (pid == 0 || pid == gettid()))
		hide_pin(size, cpus);
	return result;
}

INTERPOSED int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *cpus)
{
	int result;

	need_real_calls();
	result = real.pthread_getaffinity_np(thread, size, cpus);
	if (result == 0 && pthread_equal(thread, pthread_self()))
		hide_pin(size, cpus);
	return result;
}

INTERPOSED int prctl(int option, ...)
{
	unsigned long argument[4];
	va_list arguments;
	bool ours;
	int result;

	va_start(arguments, option);
	for (size_t i = 0; i < COUNT(argument); i++)
		argument[i] = va_arg(arguments, unsigned long);
	va_end(arguments);
	need_real_calls();
	ours = option == PR_SET_SECCOMP && tables_are_ours();
	result = real.prctl(option, argument[0], argument[1], argument[2], argument[3]);
	if (result == 0 && ours) {
		affinity_seccomp_installed();
		atomic_store(&is_inert, !any_adopted_here());
	}
	return result;
}

/* ---- programs ------------------------------------------------------------------------------------------------- */

#define MAX_ENVIRONMENT 1024

/* MAX_ENVIRONMENT: too many, or the kernel is to refuse them. */
static size_t length_of(char *const strings[])
{
	size_t n = 0;

	while (n < MAX_ENVIRONMENT && is_readable(&strings[n], sizeof(strings[n])) && strings[n])
		if (!is_readable(strings[n++], sizeof(uint64_t)))
			return MAX_ENVIRONMENT;
	return n < MAX_ENVIRONMENT && is_readable(&strings[n], sizeof(strings[n])) ? n : MAX_ENVIRONMENT;
}

/* A way to become another program, and what it is called with. */
struct program {
	enum { BY_PATH, BY_NAME, BY_DESCRIPTOR, AT_DIRECTORY } by;
	const char *path;
	int fd, flags;
	char *const *arguments;
};

static int execute(const struct program *program, char *const environment[])
{
	switch (program->by) {
	case BY_NAME:
		return real.execvpe(program->path, program->arguments, environment);
	case BY_DESCRIPTOR:
		return real.fexecve(program->fd, program->arguments, environment);
	case AT_DIRECTORY:
		return real.execveat(program->fd, program->path, program->arguments, environment, program->flags);
	default:
		return real.execve(program->path, program->arguments, environment);
	}
}

/* No allocation: this is called between fork() and exec, too. Without a page no listener has been accelerated. */
static int execute_with_settings(const struct program *program, char *const environment[])
{
	size_t length = page_is_open() ? length_of(environment) : MAX_ENVIRONMENT;
	size_t lacks = length < MAX_ENVIRONMENT ? succession_lacks(environment) : 0;

	if (lacks) {
		char *extended[length + lacks + 1];

		succession_extend(extended, environment);
		return execute(program, extended);
	}
	return execute(program, environment);
}

static int become(const struct program *program, char *const environment[])
{
	bool lifted;
	int result;

	need_real_calls();
	if (!enabled)
		return execute(program, environment);
	lifted = affinity_lift();
	succession_executes(true);
	result = execute_with_settings(program, environment);
	succession_executes(false);
	affinity_put_back(lifted);
	return result;
}

INTERPOSED int execve(const char *path, char *const arguments[], char *const environment[])
{
	return become(&(struct program){ .by = BY_PATH, .path = path, .arguments = arguments }, environment);
}

INTERPOSED int execv(const char *path, char *const arguments[])
{
	return become(&(struct program){ .by = BY_PATH, .path = path, .arguments = arguments }, environ);
}

INTERPOSED int execvpe(const char *name, char *const arguments[], char *const environment[])
{
	return become(&(struct program){ .by = BY_NAME, .path = name, .arguments = arguments }, environment);
}

INTERPOSED int execvp(const char *name, char *const arguments[])
{
	return become(&(struct program){ .by = BY_NAME, .path = name, .arguments = arguments }, environ);
}

INTERPOSED int fexecve(int fd, char *const arguments[], char *const environment[])
{
	return become(&(struct program){ .by = BY_DESCRIPTOR, .fd = fd, .arguments = arguments }, environment);
}

INTERPOSED int execveat(int directory, const char *path, char *const arguments[], char *const environment[], int flags)
{
	need_real_calls();
	if (!real.execveat) { /* glibc before 2.34 */
		errno = ENOSYS;
		return -1;
	}
	return become(
		&(struct program){
			.by = AT_DIRECTORY, .fd = directory, .path = path, .flags = flags, .arguments = arguments },
		environment);
}

static size_t count_arguments(va_list given)
{
	size_t n = 1;
	va_list arguments;

	va_copy(arguments, given);
	while (va_arg(arguments, char *))
		n++;
	va_end(arguments);
	return n;
}

/* execl() and its kin: the same with the arguments one by one, and after the last one, perhaps, an environment. */
#define EXECUTE_LIST(kind, has_environment)                                                                  \
	do {                                                                                                 \
		va_list given;                                                                               \
		size_t n;                                                                                    \
                                                                                                             \
		va_start(given, first);                                                                      \
		n = count_arguments(given);                                                                  \
		{                                                                                            \
			char *arguments[n + 1], *const *environment = environ;                               \
                                                                                                             \
			arguments[0] = (char *)first;                                                        \
			for (size_t i = 1; i <= n; i++)                                                      \
				arguments[i] = va_arg(given, char *);                                        \
			if (has_environment)                                                                 \
				environment = va_arg(given, char *const *);                                  \
			va_end(given);                                                                       \
			return become(&(struct program){ .by = kind, .path = path, .arguments = arguments }, \
			              environment);                                                          \
		}                                                                                            \
	} while (0)

INTERPOSED int execl(const char *path, const char *first, ...)
{
	EXECUTE_LIST(BY_PATH, false);
}

INTERPOSED int execlp(const char *path, const char *first, ...)
{
	EXECUTE_LIST(BY_NAME, false);
}

INTERPOSED int execle(const char *path, const char *first, ...)
{
	EXECUTE_LIST(BY_PATH, true);
}

INTERPOSED int posix_spawn(pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *restrict attributes, char *const arguments[restrict],
                           char *const environment[restrict])
{
	bool lifted;
	int result;

	need_real_calls();
	lifted = affinity_lift();
	result = real.posix_spawn(pid, path, actions, attributes, arguments, environment);
	affinity_put_back(lifted);
	return result;
}

INTERPOSED int posix_spawnp(pid_t *restrict pid, const char *restrict name, const posix_spawn_file_actions_t *actions,
                            const posix_spawnattr_t *restrict attributes, char *const arguments[restrict],
                            char *const environment[restrict])
{
	bool lifted;
	int result;

	need_real_calls();
	lifted = affinity_lift();
	result = real.posix_spawnp(pid, name, actions, attributes, arguments, environment);
	affinity_put_back(lifted);
	return result;
}

INTERPOSED int system(const char *command)
{
	bool lifted;
	int result;

	need_real_calls();
	lifted = affinity_lift();
	result = real.system(command);
	affinity_put_back(lifted);
	return result;
}

INTERPOSED FILE *popen(const char *command, const char *mode)
{
	bool lifted;
	FILE *result;

	need_real_calls();
	lifted = affinity_lift();
	result = real.popen(command, mode);
	affinity_put_back(lifted);
	return result;
}
