// SPDX-License-Identifier: MIT
/*
 * What a preloaded library adds to a libc call on a descriptor that it does not care for.
 *
 * Run it with the library preloaded. Each round times libc's call and the call that an application gets, both through a
 * pointer, in the order libc, library, library, libc, so that a drift of the machine cancels. Most system calls here
 * fail early, because the noise of a long one would hide the difference. The program writes one line a round, separated
 * by tabs: the call, its case, ns per call of libc's, ns per call of the library's. A call that the library does not
 * replace is left out.
 *
 *     LD_PRELOAD=build/libfsocket.so build/cost_call ROUNDS CALLS_PER_BATCH
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int null, spare, closed, udp, listener, pair[2], quiet_pipe[2], epoll;

static char missing[] = "/nonexistent";
static char *const arguments[] = { missing, NULL };
static struct epoll_event event = { .events = EPOLLIN };
static struct pollfd polled;
static fd_set no_fds;
static struct timeval no_time;
static struct msghdr message;
static struct iovec part;
static struct sockaddr nowhere = { .sa_family = AF_UNIX };
static int option;
static socklen_t option_size = sizeof(option);

/* POSIX lets dlsym() return functions as object pointers; the copy avoids a cast that ISO C forbids. */
#define CASE(id, type, parameters, ...)                   \
	static void id(void *definition, int calls)       \
	{                                                 \
		type(*call) parameters;                   \
		memcpy(&call, &definition, sizeof(call)); \
		for (; calls; calls--)                    \
			call(__VA_ARGS__);                \
	}

CASE(close_closed, int, (int), closed)
CASE(close_negative, int, (int), -1)
CASE(close_dup, int, (int), dup(null))
CASE(close_range_one, int, (unsigned int, unsigned int, int), (unsigned int)closed, (unsigned int)closed, 0)
CASE(close_range_rest, int, (unsigned int, unsigned int, int), (unsigned int)closed, ~0U, 0)
CASE(dup_closed, int, (int), closed)
CASE(dup2_over, int, (int, int), null, spare)
CASE(dup3_over, int, (int, int, int), null, spare, O_CLOEXEC)
CASE(fcntl_closed, int, (int, int, ...), closed, F_GETFL)
CASE(socket_no_family, int, (int, int, int), -1, SOCK_STREAM, 0)
CASE(bind_closed, int, (int, const struct sockaddr *, socklen_t), closed, &nowhere, sizeof(nowhere))
CASE(connect_closed, int, (int, const struct sockaddr *, socklen_t), closed, &nowhere, sizeof(nowhere))
CASE(connect_udp, int, (int, const struct sockaddr *, socklen_t), udp, &nowhere, 0)
CASE(connect_pair, int, (int, const struct sockaddr *, socklen_t), pair[0], &nowhere, sizeof(nowhere))
CASE(listen_udp, int, (int, int), udp, 1)
CASE(accept_closed, int, (int, struct sockaddr *, socklen_t *), closed, NULL, NULL)
CASE(accept4_closed, int, (int, struct sockaddr *, socklen_t *, int), closed, NULL, NULL, 0)
CASE(accept4_unix, int, (int, struct sockaddr *, socklen_t *, int), listener, NULL, NULL, 0)
CASE(shutdown_closed, int, (int, int), closed, SHUT_RD)
CASE(shutdown_pair, int, (int, int), pair[0], SHUT_RD)
CASE(getsockopt_closed, int, (int, int, int, void *, socklen_t *), closed, SOL_SOCKET, SO_ERROR, &option, &option_size)
CASE(getsockopt_pair, int, (int, int, int, void *, socklen_t *), pair[0], SOL_SOCKET, SO_ERROR, &option, &option_size)
CASE(setsockopt_closed, int, (int, int, int, const void *, socklen_t), closed, SOL_SOCKET, SO_PRIORITY, &option,
     option_size)
CASE(sendmsg_closed, ssize_t, (int, const struct msghdr *, int), closed, &message, 0)
CASE(recvmsg_closed, ssize_t, (int, struct msghdr *, int), closed, &message, 0)
CASE(read_closed, ssize_t, (int, void *, size_t), closed, &option, sizeof(option))
CASE(recv_closed, ssize_t, (int, void *, size_t, int), closed, &option, sizeof(option), 0)
CASE(write_closed, ssize_t, (int, const void *, size_t), closed, &option, sizeof(option))
CASE(writev_closed, ssize_t, (int, const struct iovec *, int), closed, &part, 1)
CASE(send_closed, ssize_t, (int, const void *, size_t, int), closed, &option, sizeof(option), 0)
CASE(epoll_ctl_closed, int, (int, int, int, struct epoll_event *), epoll, EPOLL_CTL_MOD, closed, &event)
CASE(epoll_ctl_pipe, int, (int, int, int, struct epoll_event *), epoll, EPOLL_CTL_MOD, quiet_pipe[0], &event)
CASE(epoll_wait_pipe, int, (int, struct epoll_event *, int, int), epoll, &event, 1, 0)
CASE(epoll_pwait_pipe, int, (int, struct epoll_event *, int, int, const sigset_t *), epoll, &event, 1, 0, NULL)
CASE(poll_pipe, int, (struct pollfd *, nfds_t, int), &polled, 1, 0)
CASE(select_none, int, (int, fd_set *, fd_set *, fd_set *, struct timeval *), 0, &no_fds, NULL, NULL, &no_time)
CASE(execve_missing, int, (const char *, char *const[], char *const[]), missing, arguments, environ)

struct call {
	const char *name;
	const char *on;
	void (*batch)(void *definition, int calls);
	int fewer; /* a batch has this many times fewer calls, because each takes many microseconds */
};

static const struct call calls[] = {
	{ "close", "closed fd", close_closed, 1 },
	{ "close", "fd -1", close_negative, 1 },
	{ "close", "dup of /dev/null", close_dup, 1 },
	{ "close_range", "one closed fd", close_range_one, 1 },
	{ "close_range", "closed fd to the last", close_range_rest, 20 },
	{ "dup", "closed fd", dup_closed, 1 },
	{ "dup2", "over another fd", dup2_over, 1 },
	{ "dup3", "over another fd", dup3_over, 1 },
	{ "fcntl", "closed fd", fcntl_closed, 1 },
	{ "socket", "no such family", socket_no_family, 1 },
	{ "bind", "closed fd", bind_closed, 1 },
	{ "connect", "closed fd", connect_closed, 1 },
	{ "connect", "UDP socket", connect_udp, 1 },
	{ "connect", "socket pair", connect_pair, 1 },
	{ "listen", "UDP socket", listen_udp, 1 },
	{ "accept", "closed fd", accept_closed, 1 },
	{ "accept4", "closed fd", accept4_closed, 1 },
	{ "accept4", "idle Unix listener", accept4_unix, 1 },
	{ "shutdown", "closed fd", shutdown_closed, 1 },
	{ "shutdown", "socket pair", shutdown_pair, 1 },
	{ "getsockopt", "closed fd", getsockopt_closed, 1 },
	{ "getsockopt", "socket pair", getsockopt_pair, 1 },
	{ "setsockopt", "closed fd", setsockopt_closed, 1 },
	{ "sendmsg", "closed fd", sendmsg_closed, 1 },
	{ "recvmsg", "closed fd", recvmsg_closed, 1 },
	{ "read", "closed fd", read_closed, 1 },
	{ "recv", "closed fd", recv_closed, 1 },
	{ "write", "closed fd", write_closed, 1 },
	{ "writev", "closed fd", writev_closed, 1 },
	{ "send", "closed fd", send_closed, 1 },
	{ "epoll_ctl", "closed fd", epoll_ctl_closed, 1 },
	{ "epoll_ctl", "pipe", epoll_ctl_pipe, 1 },
	{ "epoll_wait", "idle pipe", epoll_wait_pipe, 1 },
	{ "epoll_pwait", "idle pipe", epoll_pwait_pipe, 1 },
	{ "poll", "idle pipe", poll_pipe, 1 },
	{ "select", "no fd", select_none, 1 },
	{ "execve", "missing file", execve_missing, 1 },
};

/* The method's own error: a call against itself. */
static const struct call control = { "control", "libc's close twice", close_closed, 1 };

static int opened(const char *what, int fd)
{
	if (fd < 0)
		err(EXIT_FAILURE, "%s", what);
	return fd;
}

static void open_descriptors(void)
{
	struct sockaddr_un unnamed = { .sun_family = AF_UNIX };

	null = opened("/dev/null", open("/dev/null", O_RDWR));
	spare = opened("dup", dup(null));
	udp = opened("UDP socket", socket(AF_INET, SOCK_DGRAM, 0));
	listener = opened("Unix socket", socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
	epoll = opened("epoll", epoll_create1(0));
	if (bind(listener, (struct sockaddr *)&unnamed, sizeof(unnamed.sun_family)) || listen(listener, 1) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || pipe(quiet_pipe) ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, quiet_pipe[0], &event))
		err(EXIT_FAILURE, "descriptors");
	polled = (struct pollfd){ .fd = quiet_pipe[0], .events = POLLIN };
	closed = opened("dup", dup(null)); /* the last one, so that no other file gets its number */
	close(closed);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double time_batch(const struct call *call, void *definition, int batch)
{
	double began = now();

	call->batch(definition, batch);
	return (now() - began) / batch;
}

/* The symbol as the application gets it, or NULL where that is libc's own. */
static void *interposed(const char *name, void *libc_definition)
{
	void *definition = dlsym(RTLD_DEFAULT, name);

	return definition == libc_definition ? NULL : definition;
}

static void time_round(const struct call *call, void *libc, void *library, int batch)
{
	double first = time_batch(call, libc, batch);
	double second = time_batch(call, library, batch);
	double third = time_batch(call, library, batch);
	double fourth = time_batch(call, libc, batch);

	printf("%s\t%s\t%.3f\t%.3f\n", call->name, call->on, (first + fourth) / 2, (second + third) / 2);
}

static void time_rounds(const struct call *call, void *libc, void *library, int rounds, int batch)
{
	batch = (batch - 1) / call->fewer + 1;
	call->batch(libc, batch);
	call->batch(library, batch);
	for (int i = 0; i < rounds; i++)
		time_round(call, libc, library, batch);
}

int main(int argc, char *argv[])
{
	int rounds = argc == 3 ? atoi(argv[1]) : 0;
	int batch = argc == 3 ? atoi(argv[2]) : 0;
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
	void *libc_close = libc ? dlsym(libc, "close") : NULL;

	if (rounds < 1 || batch < 1)
		errx(2, "usage: LD_PRELOAD=LIBRARY cost_call ROUNDS CALLS_PER_BATCH");
	if (!libc_close)
		errx(EXIT_FAILURE, "no libc.so.6 in this process");
	open_descriptors();
	time_rounds(&control, libc_close, libc_close, rounds, batch);
	for (size_t i = 0; i < COUNT(calls); i++) {
		void *definition = dlsym(libc, calls[i].name);
		void *library = interposed(calls[i].name, definition);

		if (definition && library)
			time_rounds(&calls[i], definition, library, rounds, batch);
	}
	return 0;
}
