// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "clone.h"
#include "poll_bell.h"
#include "real.h"

int bell_create(void)
{
	return keep_descriptor(real.epoll_create1(EPOLL_CLOEXEC), BELL);
}

static bool make_bell(struct listener *l)
{
	int bell = bell_create();

	if (bell < 0)
		return false;
	l->poll_bell = bell;
	CPU_ZERO(&l->polled);
	return true;
}

static void guard(struct listener *l, int cpu)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	bool listens = atomic_load(&l->shared->seat[cpu].listening) && clone_of(l, cpu) >= 0;

	if (listens && !CPU_ISSET(cpu, &l->polled) &&
	    !real.epoll_ctl(l->poll_bell, EPOLL_CTL_ADD, clone_of(l, cpu), &event))
		CPU_SET(cpu, &l->polled);
	if (!listens && CPU_ISSET(cpu, &l->polled)) {
		real.epoll_ctl(l->poll_bell, EPOLL_CTL_DEL, atomic_load(&l->clone[cpu].fd), &event);
		CPU_CLR(cpu, &l->polled);
	}
}

int poll_bell(int fd)
{
	struct listener *l;
	struct held held;
	int bell = -1;

	lock_tables(&held);
	l = find_listener(fd);
	if (l && l->cloned && !l->blocks && (l->poll_bell || make_bell(l))) {
		for_each_clone(cpu, l)
			guard(l, cpu);
		bell = l->poll_bell;
	}
	unlock_tables(&held);
	return bell;
}

void poll_bell_take_down(struct listener *l)
{
	if (!l->poll_bell)
		return;
	set_descriptor(l->poll_bell, UNKNOWN);
	real.close(l->poll_bell);
	l->poll_bell = 0;
}
