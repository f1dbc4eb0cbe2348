// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <pthread.h>

#include "adopt.h"
#include "affinity.h"
#include "bell.h"
#include "fast_epoll.h"
#include "fork.h"
#include "ports.h"
#include "settings.h"
#include "tables.h"
#include "turn.h"

/* The child shares its parent's epolls. Only the parent changes what the library has put into them. */
static void forget_threads_of(struct listener *l)
{
	bells_forget(l);
	for (size_t i = 0; i < MAX_WATCHES; i++) {
		l->watch[i].thread = 0;
		l->watch[i].cpu = -1;
		l->watch[i].inherited = true;
	}
	for_each_clone(cpu, l)
		atomic_store(&l->clone[cpu].neighbour_epfd, -1);
	atomic_store(&l->neighbours, 0);
}

/* In a child: forgets what the parent's threads have adopted and deferred. The child chooses CPUs of its own. */
static void forget_parent(void)
{
	affinity_forget();
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation)
			forget_threads_of(&listeners[i]);
	adoptions_forget();
	connections_forget();
	fast_epoll_forget_threads();
	ports_after_fork();
}

/* before_fork() keeps these for after_fork(). The forking thread's signals stay blocked between the two. */
static struct held held_over_fork;
static bool lifted_over_fork;

static void before_fork(void)
{
	struct held held;

	notice_copy();
	turn_leaves_all_alone();
	if (settings.fast_epoll)
		fast_epoll_before_fork();
	lock_tables(&held);
	held_over_fork = held;
	lifted_over_fork = affinity_lift();
}

static void after_fork(void)
{
	struct held held = held_over_fork;

	affinity_put_back(lifted_over_fork);
	unlock_tables(&held);
}

static void after_fork_in_child(void)
{
	struct held held;

	lifted_over_fork = false;
	notice_fork();
	lock_tables(&held); /* the lock is new, and after_fork() lets it go */
	after_fork();
}

void fork_start(void)
{
	tables_start(forget_parent);
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
