// SPDX-License-Identifier: MIT
/*
 * What connect() costs when libfsocket chooses the source port, against libc's connect(), where the kernel does.
 *
 * Run it with the library preloaded, in a network namespace of its own. Each round times a batch of connections to a
 * loopback listener in the order libc, library, library, libc. First there are no other connections, and then there are
 * many, which child processes hold. Half of the ports have a connection to one address, and the other connections go to
 * other addresses. The library opens them from all CPUs in turn, because the kernel would take the even ports first, and
 * the first of two CPUs has only these. The program writes one line a round, separated by tabs: the call, its case, ns
 * per call of libc's, ns per call of the library's.
 *
 *     LD_PRELOAD=build/libfsocket.so unshare --net build/cost_connect CONNECTIONS ROUNDS CALLS_PER_BATCH
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <err.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HALF_THE_PORTS 14116 /* of the usual ip_local_port_range */
#define OTHERS 200           /* an address without connections */
#define OTHER_DESCRIPTORS 64
#define BACKLOG 64
#define CONNECTIONS_PER_CPU 100 /* by turns */

typedef int (*connect_call)(int, const struct sockaddr *, socklen_t);

static int listener;
static in_port_t port;

static int checked(const char *what, int result)
{
	if (result < 0)
		err(EXIT_FAILURE, "%s", what);
	return result;
}

static void bring_loopback_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = checked("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	checked("bringing lo up", ioctl(fd, SIOCSIFFLAGS, &lo));
	close(fd);
}

static void start_listening(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	socklen_t size = sizeof(any);

	listener = checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	checked("bind", bind(listener, (struct sockaddr *)&any, size));
	checked("listen", listen(listener, BACKLOG));
	checked("getsockname", getsockname(listener, (struct sockaddr *)&any, &size));
	port = any.sin_port;
}

static void run_on(int nth)
{
	static cpu_set_t allowed;
	cpu_set_t one;

	if (!CPU_COUNT(&allowed))
		checked("sched_getaffinity", sched_getaffinity(0, sizeof(allowed), &allowed));
	nth %= CPU_COUNT(&allowed);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nth-- == 0)
			CPU_SET(cpu, &one);
	checked("sched_setaffinity", sched_setaffinity(0, sizeof(one), &one));
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* To the nth address of this host. Returns how long connect() took. */
static double open_connection(connect_call call, int nth, int ends[2])
{
	struct sockaddr_in to = { .sin_family = AF_INET,
	                          .sin_port = port,
	                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (in_addr_t)nth) };
	double began, ended;

	ends[0] = checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	began = now();
	checked("connect", call(ends[0], (struct sockaddr *)&to, sizeof(to)));
	ended = now();
	ends[1] = checked("accept", accept(listener, NULL, NULL));
	return ended - began;
}

/* A reset leaves no TIME_WAIT. */
static void close_connection(const int ends[2])
{
	struct linger none = { .l_onoff = 1 };

	checked("SO_LINGER", setsockopt(ends[0], SOL_SOCKET, SO_LINGER, &none, sizeof(none)));
	close(ends[0]);
	close(ends[1]);
}

/* ---- connections that exist ------------------------------------------------------------------------------------ */

static int per_child(void)
{
	struct rlimit limit;

	checked("getrlimit", getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	checked("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
	return (int)(limit.rlim_cur > 20000 ? 20000 : limit.rlim_cur) / 2 - OTHER_DESCRIPTORS;
}

static void hold(int first, int last, int ready)
{
	int ends[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = first; i < last; i++) {
		if (i == first || i % CONNECTIONS_PER_CPU == 0)
			run_on(i / CONNECTIONS_PER_CPU);
		open_connection(connect, i / HALF_THE_PORTS, ends);
	}
	checked("write", (int)write(ready, "", 1));
	pause();
	_exit(EXIT_SUCCESS);
}

/* One child after the other, so that each accepts its own connections. They end with this process. */
static void have_connections(int connections)
{
	int most = per_child(), ready[2];
	char byte;

	for (int first = 0; first < connections; first += most) {
		int last = first + most < connections ? first + most : connections;

		checked("pipe", pipe(ready));
		if (!checked("fork", fork()))
			hold(first, last, ready[1]);
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			errx(EXIT_FAILURE, "a child could not open its connections");
		close(ready[0]);
	}
}

/* ---- measuring ------------------------------------------------------------------------------------------------- */

static double time_batch(connect_call call, int nth, int batch)
{
	double total = 0;
	int ends[2];

	for (int i = 0; i < batch; i++) {
		total += open_connection(call, nth, ends);
		close_connection(ends);
	}
	return total / batch;
}

static void time_rounds(const char *name, connect_call libc, int nth, int rounds, int batch)
{
	run_on(0);
	time_batch(libc, nth, batch);
	time_batch(connect, nth, batch);
	for (int i = 0; i < rounds; i++) {
		double first = time_batch(libc, nth, batch);
		double second = time_batch(connect, nth, batch);
		double third = time_batch(connect, nth, batch);
		double fourth = time_batch(libc, nth, batch);

		printf("connect\t%s\t%.3f\t%.3f\n", name, (first + fourth) / 2, (second + third) / 2);
	}
	fflush(stdout); /* otherwise children would print it too */
}

int main(int argc, char *argv[])
{
	int connections = argc == 4 ? atoi(argv[1]) : 0;
	int rounds = argc == 4 ? atoi(argv[2]) : 0;
	int batch = argc == 4 ? atoi(argv[3]) : 0;
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
	void *symbol = libc ? dlsym(libc, "connect") : NULL;
	connect_call libc_connect;

	if (connections < 1 || rounds < 1 || batch < 1)
		errx(2, "usage: LD_PRELOAD=LIBRARY unshare --net cost_connect CONNECTIONS ROUNDS CALLS_PER_BATCH");
	if (!symbol || symbol == dlsym(RTLD_DEFAULT, "connect"))
		errx(EXIT_FAILURE, "connect() is not interposed: did the library load?");
	memcpy(&libc_connect, &symbol, sizeof(symbol)); /* ISO C has no cast for this */
	bring_loopback_up();
	start_listening();
	time_rounds("no other connection", libc_connect, 0, rounds, batch);
	have_connections(connections);
	time_rounds("many, to others", libc_connect, OTHERS, rounds, batch);
	time_rounds("half of the ports used", libc_connect, 0, rounds, batch);
	return 0;
}
