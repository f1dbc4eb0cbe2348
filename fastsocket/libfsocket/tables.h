/* SPDX-License-Identifier: MIT */
/* What the process knows of its listeners, and the lock that guards it. */
#ifndef TABLES_H
#define TABLES_H

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "common.h"
#include "descriptors.h"
#include "reasons.h"
#include "shared.h"

/* The clone of one CPU, as this process has it. */
struct clone {
	atomic_int fd;                     /* -1: none */
	atomic_int watchers;               /* epolls of this process that have it; 0: none */
	atomic_int neighbour_epfd;         /* the epoll that watches it as a neighbour's; -1: none */
	uint64_t cookie;                   /* tells whether that descriptor is still the socket that the library made */
	_Atomic uint64_t pending_ms;       /* since when a connection has been seen to wait there; 0: none waits */
	_Atomic uint64_t pending_accepted; /* how many its own worker had accepted at that time */
	_Atomic uint16_t tenure;           /* changes when a thread of this process gives the clone up */
};

/* How many clones of neighbours each worker guards with its bell. */
#define BELL_CLONES 2

/* An epoll that has a listener of the application. */
struct watch {
	bool used;
	bool inherited; /* the epoll is the parent's too, and the parent looks after it */
	int epfd, fd;
	int cpu;         /* the CPU whose clone the epoll has too; -1: none */
	bool wakes_all;  /* the epoll has that clone without EPOLLEXCLUSIVE, because the clone has several workers */
	uint64_t thread; /* the thread that looks after it; 0: no thread has waited for this epoll yet */
	uint64_t looked_ms;
	struct epoll_event event;
	int bell;                 /* its bell (bell.h); 0: none */
	bool is_armed;            /* the bell can ring */
	int guarded[BELL_CLONES]; /* the CPUs whose clones the bell has; -1: none */
};
#define MAX_WATCHES 256

/* A BPF program or a BPF map that the library has loaded. */
struct loaded {
	int fd;      /* 0: none */
	uint32_t id; /* tells whether that descriptor is still the program or the map */
};

/* Where a listener comes from. */
enum origin { LISTENED, INHERITED_BY_EXEC, RECEIVED };

struct listener {
	int fd;                      /* one of the application's descriptors of it */
	int descriptors;             /* how many descriptors of it this process has */
	_Atomic uint32_t generation; /* 0: a free entry; changes with each listener that uses the entry */
	pid_t creator;
	uint64_t cookie;
	struct sockaddr_storage address;
	enum origin origin;
	atomic_bool cloned;          /* it has clones */
	atomic_bool blocks;          /* accept() on it blocks */
	atomic_int own_incoming_cpu; /* SO_INCOMING_CPU before the library wrote on it */
	atomic_bool own_reuseport;   /* the application set SO_REUSEPORT itself */
	atomic_bool sharded;         /* the application opened several such listeners: the library makes no clones */
	atomic_bool guarded;         /* the application set an option that no clone can get */
	atomic_bool signals;         /* it has O_ASYNC: the kernel sends signals */
	bool is_wanted;              /* FSOCKET_ONLY names its port, or no port */
	atomic_bool defers_accept;   /* the library has set TCP_DEFER_ACCEPT */
	atomic_bool sends_otherwise; /* its connections inherit SO_LINGER or TCP_CORK */
	atomic_bool covered;         /* every CPU that has a clone has one that listens */
	enum reason why_not;         /* why it has neither clones nor shards */
	cpu_set_t cpus;              /* the CPUs that have a clone */
	atomic_int cpus_end;         /* one more than the highest of these CPUs */
	atomic_int neighbours;       /* how many clones of other workers this process watches */
	atomic_int watched;          /* the sum of the clones' watchers */
	int poll_bell;               /* its bell for poll() and select(): poll_bell.h; 0: none */
	cpu_set_t polled;            /* the CPUs whose clones are in poll_bell */
	struct loaded program, clones_map; /* balance.h */
	struct shared_listener *shared;
	struct watch watch[MAX_WATCHES];
	struct clone clone[CPU_SETSIZE];
};

#define for_each_clone(index, l)                                          \
	for (int index = 0; index < atomic_load(&(l)->cpus_end); index++) \
		if (atomic_load(&(l)->clone[index].fd) >= 0)

extern struct listener listeners[MAX_LISTENERS];
extern _Atomic(struct listener *) listener_by_fd[MAX_FDS];

static inline struct listener *find_listener(int fd)
{
	return !likely(descriptor(fd) == LISTENER) ? NULL
	                                           : atomic_load_explicit(&listener_by_fd[fd], memory_order_acquire);
}

/*
 * What lock_tables() saves and unlock_tables() restores. While a thread holds the tables, all its signals are blocked,
 * so that no signal handler waits for its own thread, and the thread cannot be cancelled. Only rare paths lock the
 * tables.
 */
struct held {
	sigset_t signals;
	int cancel_state;
	int saved_errno;
};
void lock_tables(struct held *held);
void unlock_tables(const struct held *held);

/*
 * Are the tables about this process? Not in a child of vfork(): it has its parent's memory, but descriptors of its own.
 */
bool tables_are_ours(void);
/*
 * Makes the tables this process's own if the process is a child that was made without fork(), and so without the
 * handlers of fork(): then it has a copy of its parent's tables. It calls forget_parent(), which tables_start() got,
 * for the rest.
 */
void notice_copy(void);
/* Does what notice_copy() does, in the child of fork(), unless another handler of fork() has caused that already. */
void notice_fork(void);
void tables_start(void (*forget_parent)(void));

#endif
