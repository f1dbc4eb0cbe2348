/* SPDX-License-Identifier: MIT */
/*
 * What each descriptor is to the library, in one byte. So a call on a descriptor that is none of the library's business
 * costs one load.
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common.h"

/* The library ignores descriptors from this number on. */
#define MAX_FDS 65536

/* The order matters: functions below ask for a range of kinds. */
enum descriptor {
	UNKNOWN,   /* not looked at yet */
	PLAIN,     /* not the library's business */
	OPENED,    /* a TCP socket that has just been made */
	LISTENER,  /* a listener of the application; listener_by_fd[] says which */
	CLONE,     /* a clone of the library */
	WATCHING,  /* an epoll that has a listener in it, or an epoll that has such an epoll in it */
	BELL,      /* an epoll of the library: bell.h */
	PROGRAM,   /* a program or a map of the library: balance.h */
	GUARDED,   /* a TCP socket with an option that no clone can get */
	FRESH,     /* a connection just accepted, in no epoll */
	DELIVERED, /* connected, or about to be, from a port of its CPU, and confined to that port */
	DEFERRED,  /* a connection that the application has put into an epoll, but the library has not */
	REPORTED,  /* deferred, and the application has got an event of it */
	BUSY,      /* deferred, and a thread is just registering it or changing its event */
};
extern _Atomic uint8_t descriptors[MAX_FDS];
/* One more than the highest descriptor that was ever anything but UNKNOWN. */
extern _Atomic uint32_t descriptors_end;
void extend_descriptors(uint32_t end);

/* The calling thread has a descriptor table of its own (unshare(2)), where the numbers mean other files. */
extern __thread bool has_own_table INITIAL_EXEC;
/*
 * The process installed a seccomp filter before a worker adopted a clone: the library does only what the process does.
 */
extern atomic_bool is_inert;

static inline enum descriptor descriptor(int fd)
{
	if (!likely((unsigned int)fd < MAX_FDS && !has_own_table &&
	            !atomic_load_explicit(&is_inert, memory_order_relaxed)))
		return PLAIN;
	return atomic_load_explicit(&descriptors[fd], memory_order_acquire);
}

static inline void set_descriptor(int fd, enum descriptor kind)
{
	if ((unsigned int)fd >= MAX_FDS || has_own_table)
		return;
	if (kind != UNKNOWN && !likely((uint32_t)fd < atomic_load_explicit(&descriptors_end, memory_order_relaxed)))
		extend_descriptors((uint32_t)fd + 1);
	atomic_store_explicit(&descriptors[fd], (uint8_t)kind, memory_order_release);
}

/*
 * Makes a descriptor one of the library's own: moves it to a number out of the application's way, and notes its kind.
 * Returns the new number; -1: that failed, and the descriptor is closed.
 */
int keep_descriptor(int fd, enum descriptor kind);

/* Changes the kind of a descriptor if it still is `from`. False: another thread has changed it meanwhile. */
static inline bool change_descriptor(int fd, enum descriptor from, enum descriptor to)
{
	uint8_t expected = (uint8_t)from;

	return atomic_compare_exchange_strong(&descriptors[fd], &expected, (uint8_t)to);
}

/* May a new kind simply replace this one? Yes if the library keeps nothing else about the descriptor. */
static inline bool is_free_to_change(enum descriptor kind)
{
	return kind < LISTENER;
}

/* Has Fast-Epoll put off the registration of this connection, so that the kernel's epoll does not know it yet? */
static inline bool is_deferred(enum descriptor kind)
{
	return kind >= DEFERRED;
}

#endif
