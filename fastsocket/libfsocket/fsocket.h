/* SPDX-License-Identifier: MIT */
/*
 * libfsocket: per-core listen sockets for unmodified applications.
 *
 * preload.c             the libc calls we stand in front of
 * real.c                the calls behind ours
 * local_listen_table.c  a listener per CPU, adopted by the worker that runs there
 * clone.c               what makes a socket the clone of a listener
 * incoming_cpu.c        whether this kernel steers among clones
 * counters.c            what happened, per CPU, readable from outside
 *
 * The rule that everything here obeys: when in doubt, do what libc would have done.
 */
#ifndef FSOCKET_H
#define FSOCKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define likely(x) __builtin_expect(!!(x), 1)

/* The next definition of each call we interpose: libc's, or another preloaded library's. */
struct real_calls {
	int (*listen)(int, int);
	int (*accept)(int, struct sockaddr *, socklen_t *);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*epoll_ctl)(int, int, int, struct epoll_event *);
	int (*close)(int);
	int (*shutdown)(int, int);
	int (*dup2)(int, int);
	int (*dup3)(int, int, int);
	int (*close_range)(unsigned int, unsigned int, int);
	void (*closefrom)(int);
};
extern struct real_calls real;
void find_real_calls(void);

/* Another library's constructor may call us before our own has run. */
static inline void need_real_calls(void)
{
	if (!likely(real.close))
		find_real_calls();
}

/* One line on stderr, unless stderr is no place for it. errno is kept. */
void fsocket_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Counters: one cache line per CPU in memory shared with all descendants. The layout is read from outside by
 * fastsocket/counters.py through /proc/PID/mem; change both, and FSOCKET_COUNTERS_VERSION, together.
 */
#define FSOCKET_COUNTERS_NAME "fsocket"
#define FSOCKET_COUNTERS_MAGIC "FSOCKET"
#define FSOCKET_COUNTERS_VERSION 1

struct fsocket_cpu_counters {
	_Atomic uint64_t accepted_local;  /* from the listener of the worker's own CPU */
	_Atomic uint64_t accepted_global; /* from the application's own listener */
	_Atomic uint64_t adopted;         /* local listeners taken up by a worker */
	_Atomic uint64_t fallen_back;     /* workers that found none to take up */
} __attribute__((aligned(64)));

struct fsocket_counters {
	char magic[8];
	uint32_t version;
	uint32_t cpus;
	struct fsocket_cpu_counters cpu[] __attribute__((aligned(64)));
};

/* Map the counters if that has not happened yet in this process or an ancestor. False: no memory. */
bool counters_open(void);
/* The counters of a CPU; a CPU out of range counts as CPU 0. Only after counters_open() succeeded. */
struct fsocket_cpu_counters *counters_of(int cpu);

static inline void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Descriptors past these are none of ours. */
#define MAX_FDS 65536

/* Clones. bind_clone() gives a bound socket that does not listen yet, or -1 with errno. */
bool set_int(int fd, int level, int name, int value);
int get_int(int fd, int level, int name, int missing);
uint64_t cookie_of(int fd);
int bind_clone(int fd, int cpu);
bool copy_rest(int from, int to);
bool has_filter(int fd);
bool kernel_honours_incoming_cpu(void);

/* Local Listen Table. */
struct listener;
void llt_configure(void);
struct listener *llt_find(int fd);
void llt_listen(int fd, int backlog);
int llt_accept(struct listener *l, int fd, struct sockaddr *addr, socklen_t *len, int flags);
void llt_epoll_ctl(struct listener *l, int epfd, int op, struct epoll_event *event);
void llt_shutdown(struct listener *l, int how);
/* The application is about to close fds first..last: let go of what is ours among them. */
void llt_closing(unsigned int first, unsigned int last);

#endif
