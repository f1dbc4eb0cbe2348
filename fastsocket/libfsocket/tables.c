// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tables.h"

struct listener listeners[MAX_LISTENERS];
_Atomic(struct listener *) listener_by_fd[MAX_FDS];

/*
 * Handlers of fork() that the application registered before the library may close a listener while the library forks.
 * So the lock is recursive.
 */
static pthread_mutex_t table_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pid_t table_owner;
static void (*forget_parent)(void);
/*
 * The kernel clears *no_copy in a child that has a copy of the memory, and not in one that borrows it (vfork):
 * madvise(2).
 */
static atomic_int never_a_copy = 1;
static atomic_int *no_copy = &never_a_copy;

/*
 * ThreadSanitizer does not see the mutex inside what it takes for a blocking call, such as epoll_wait() (BlockingCall
 * in LLVM's tsan_interceptors_posix.cpp). So the library tells ThreadSanitizer of the lock.
 */
#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#else
#define __tsan_acquire(address) ((void)(address))
#define __tsan_release(address) ((void)(address))
#endif

void lock_tables(struct held *held)
{
	sigset_t all;

	held->saved_errno = errno;
	sigfillset(&all);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &held->cancel_state);
	pthread_sigmask(SIG_SETMASK, &all, &held->signals);
	pthread_mutex_lock(&table_lock);
	__tsan_acquire(&table_lock);
}

void unlock_tables(const struct held *held)
{
	__tsan_release(&table_lock);
	pthread_mutex_unlock(&table_lock);
	pthread_sigmask(SIG_SETMASK, &held->signals, NULL);
	pthread_setcancelstate(held->cancel_state, NULL);
	errno = held->saved_errno;
}

static void take_tables(void)
{
	table_owner = getpid();
	atomic_store(no_copy, 1);
}

/* The child has one thread, so no other thread holds the lock. */
static void begin_anew(void)
{
	take_tables();
	table_lock = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
	forget_parent();
}

void notice_copy(void)
{
	if (!likely(atomic_load_explicit(no_copy, memory_order_relaxed)))
		begin_anew();
}

void notice_fork(void)
{
	if (!atomic_load(no_copy) || getpid() != table_owner)
		begin_anew();
}

bool tables_are_ours(void)
{
	notice_copy();
	return !has_own_table && getpid() == table_owner;
}

static void note_copies(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || madvise(map, size, MADV_WIPEONFORK))
		return;
	atomic_store((atomic_int *)map, 1);
	no_copy = map;
}

void tables_start(void (*forget)(void))
{
	forget_parent = forget;
	note_copies();
	take_tables();
}
