/* SPDX-License-Identifier: MIT */
/*
 * The memory that a whole server shares: counters of what happened, and who serves what. A server is the process that
 * first listened, the processes descended from it, and its successors. fastsocket/shared_memory.py reads the memory
 * from outside. A change of a structure needs a new FSOCKET_SHARED_VERSION and the same change in that file. A new
 * counter (counters.def) needs neither.
 */
#ifndef SHARED_H
#define SHARED_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define FSOCKET_SHARED_NAME "fsocket"
#define FSOCKET_SHARED_MAGIC "FSOCKET"
#define FSOCKET_SHARED_VERSION 7

#define MAX_LISTENERS 64
/*
 * The memory has room for this many adopters per CPU. Further threads adopt too, but the library does not see them when
 * it asks whether a clone has an adopter.
 */
#define MAX_ADOPTERS 8

struct cpu_counters {
	union {
		struct {
#define COUNTER(name, component, meaning) _Atomic uint64_t name;
#include "counters.def"
#undef COUNTER
		};
		uint64_t room[32]; /* for more counters */
	};
} __attribute__((aligned(64)));

/* Who accepts from the clone of one CPU. */
struct seat {
	_Atomic uint64_t adopter[MAX_ADOPTERS]; /* process << 32 | thread; 0, or a dead thread: a free place */
	_Atomic uint64_t tended_ms;             /* CLOCK_MONOTONIC when an adopter last looked after the clone */
	_Atomic uint64_t accepted;              /* connections that the adopters accepted from it */
	_Atomic uint32_t listening;
	_Atomic uint32_t failing; /* the last accept() failed, for lack of a descriptor perhaps */
	uint64_t cookie, inode;   /* of the clone: another program finds it by these */
} __attribute__((aligned(64)));

struct shared_listener {
	_Atomic uint32_t in_use;
	_Atomic int32_t creator; /* the process that listened; 0 once the process has closed it */
	uint64_t cookie;         /* SO_COOKIE of the application's socket */
	struct sockaddr_storage address;
	char why_not[112];                     /* a text of reasons.def, or empty while the clones work */
	_Atomic uint32_t tickets;              /* adoptions by workers that the application had not pinned */
	_Atomic int32_t balance;               /* the id of its BPF program; a negative error; 0: not asked for */
	_Atomic uint64_t withdrawn_ms;         /* since when the clones are to receive nothing; 0: they receive */
	_Atomic uint64_t resume_ms;            /* until then another program empties its clones; 0: ours receive */
	_Atomic uint32_t unattended;           /* no clone has a worker: the listener gets the new connections */
	_Atomic uint64_t let_go_ms;            /* when its creator closed it */
	_Atomic uint32_t refused;              /* enum reason: why no worker may adopt a clone any more */
	_Atomic uint32_t delays_acks;          /* the ACKs of its connections wait for an answer */
	_Atomic uint64_t checked_ms;           /* when a worker last looked who else listens on the address */
	_Atomic uint64_t shard[CPU_SETSIZE];   /* cookies of listeners that the application opened for the address */
	_Atomic uint64_t waiting[CPU_SETSIZE]; /* workers that watch the listener without having adopted a clone */
	struct seat seat[CPU_SETSIZE];
};

struct shared_memory {
	char magic[8];
	uint32_t version;
	uint32_t cpus;
	uint32_t counters_offset, counters_stride;
	uint32_t listeners_offset, listeners_stride, listeners;
	uint32_t seats_offset, seats_stride, adopters; /* within a listener */
	_Atomic uint32_t departures; /* workers that closed a listener: the others look at once what was left */
	_Atomic uint32_t arrivals;   /* workers that came while others waited for one to share with: these look too */
	struct cpu_counters cpu[CPU_SETSIZE];
	struct shared_listener listener[MAX_LISTENERS];
};

/* fastsocket/shared_memory.py has the same numbers. */
_Static_assert(CPU_SETSIZE == 1024, "MAX_CPUS");
_Static_assert(offsetof(struct shared_memory, adopters) == 44 && offsetof(struct shared_memory, departures) == 48,
               "Header");
_Static_assert(offsetof(struct shared_memory, cpu) == 64, "COUNTERS_OFFSET");
_Static_assert(sizeof(struct cpu_counters) == 256, "COUNTERS_STRIDE");
_Static_assert(offsetof(struct seat, tended_ms) == 64 && offsetof(struct seat, accepted) == 72 &&
                       offsetof(struct seat, listening) == 80 && offsetof(struct seat, failing) == 84,
               "SeatLine");
_Static_assert(sizeof(struct seat) == 128, "SEATS_STRIDE");
_Static_assert(offsetof(struct shared_listener, creator) == 4 && offsetof(struct shared_listener, cookie) == 8 &&
                       offsetof(struct shared_listener, address) == 16 &&
                       offsetof(struct shared_listener, why_not) == 144 &&
                       offsetof(struct shared_listener, balance) == 260,
               "ListenerHead");
_Static_assert(offsetof(struct shared_listener, seat) == 320 + 2 * 8 * CPU_SETSIZE, "SEATS_OFFSET");
_Static_assert(sizeof(struct shared_listener) == 320 + (2 * 8 + 128) * CPU_SETSIZE, "LISTENERS_STRIDE");
_Static_assert(sizeof(struct shared_memory) == 64 + 256 * CPU_SETSIZE + MAX_LISTENERS * sizeof(struct shared_listener),
               "BYTES");

/* Counts the CPUs. Call it while there is a /sys to count them in: the application may go into a chroot later. */
void shared_start(void);
long shared_cpus(void);
extern bool shared_is_mapped;
static inline bool shared_is_open(void)
{
	return shared_is_mapped;
}
/* Makes and maps the memory, if this process or an ancestor has not done so. False: there is no memory. */
bool shared_open(void);
/* Closes the descriptor of the memory, because the process has no listener any more. The memory stays mapped. */
void shared_close(void);
/*
 * Opens the memory again by its mapping, if the process has closed it. The kernel allows this only to privileged
 * processes. In others the memory stays without a descriptor.
 */
void shared_reopen(void);
/* Says whether the descriptor of the memory stays open when this process becomes another program. */
void shared_goes_along(bool goes);
/*
 * Makes this process one server with another process: maps that one's memory, which has a place for this listener.
 * False: there is no such memory, or it may not be mapped, or this process has its own already.
 */
bool shared_join(pid_t pid, uint64_t cookie);
struct shared_listener *shared_listener_at(size_t index);
struct shared_listener *shared_find(uint64_t cookie);
void shared_add_shard(struct shared_listener *listener, uint64_t cookie);

/* The counters of a CPU. A CPU out of range counts as CPU 0. Call it only after shared_open() has succeeded. */
struct cpu_counters *counters_of(int cpu);
struct cpu_counters *counters_here(void);

static inline void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* A worker has closed a listener, or has come to watch one: tells the other workers, which look at once. */
void worker_departs(void);
void worker_arrives(void);
/* A number that changes with each departure and each arrival. */
uint32_t workers_changes(void);

#endif
