// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "clone.h"
#include "follow.h"
#include "options.h"
#include "real.h"
#include "sockopt.h"
#include "withdrawal.h"

void note_flags(struct listener *l, int fd)
{
	int flags = real.fcntl(fd, F_GETFL);

	l->blocks = flags < 0 || !(flags & O_NONBLOCK);
	l->signals = flags & O_ASYNC;
}

void flags_changed(int fd)
{
	struct listener *l = find_listener(fd);

	if (!l)
		return;
	note_flags(l, fd);
	if (l->signals)
		refuse(l, SENDS_SIGNALS);
}

void listener_flags_change(int fd)
{
	struct held held;

	lock_tables(&held);
	flags_changed(fd);
	unlock_tables(&held);
}

void clones_listen_again(const struct listener *l, int backlog)
{
	bool may_listen = listens_at_its_address(l);

	for_each_clone(cpu, l)
		if (may_listen && atomic_load(&l->shared->seat[cpu].listening))
			real.listen(clone_of(l, cpu), backlog);
}

uint32_t clones_queue(const struct listener *l)
{
	uint32_t total = 0;

	for_each_clone(cpu, l)
		if (clone_listens(l, cpu))
			total += queue_of(clone_of(l, cpu));
	return total;
}

/* The application pauses its listener by shutdown(), so its clones pause too. */
void clones_shutdown(struct listener *l, int how)
{
	struct held held;

	lock_tables(&held);
	for_each_clone(cpu, l)
		if (clone_listens(l, cpu)) /* else connections after a later listen() would inherit the shutdown */
			real.shutdown(clone_of(l, cpu), how);
	unlock_tables(&held);
}

void clones_end(struct listener *l)
{
	struct held held;

	lock_tables(&held);
	for_each_clone(cpu, l)
		if (atomic_load(&l->shared->seat[cpu].listening))
			clone_stop_listening(l, cpu);
	unlock_tables(&held);
}

static bool is_about_the_group(int level, int name)
{
	return level == SOL_SOCKET &&
	       (name == SO_REUSEPORT || name == SO_INCOMING_CPU || name == SO_ATTACH_REUSEPORT_CBPF ||
	        name == SO_ATTACH_REUSEPORT_EBPF || name == SO_DETACH_REUSEPORT_BPF);
}

/* Clones that do not listen yet follow too: the worker that adopts one may lack the privilege to set the option. */
static bool clones_follow(struct listener *l, int level, int name, const void *value, socklen_t size)
{
	bool follow = true;

	for_each_clone(cpu, l) {
		int fd = clone_of(l, cpu);

		if (fd < 0)
			continue;
		if (!is_about_the_group(level, name))
			real.setsockopt(fd, level, name, value, size);
		follow = option_follows(l->fd, fd, level, name) && follow;
	}
	return follow;
}

void clones_setsockopt(struct listener *l, int level, int name, const void *value, socklen_t size)
{
	struct held held;

	lock_tables(&held);
	l->sends_otherwise = sends_otherwise(l->fd);
	l->defers_accept = l->defers_accept && !(level == IPPROTO_TCP && name == TCP_DEFER_ACCEPT);
	if (level == SOL_SOCKET && name == SO_REUSEPORT) {
		l->own_reuseport = get_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 0);
		if (l->cloned)
			set_int(l->fd, SOL_SOCKET, SO_REUSEPORT, 1);
	} else {
		bool can = option_can_be_copied(l->fd, level, name);

		if (level == SOL_SOCKET && name == SO_INCOMING_CPU)
			l->own_incoming_cpu = get_int(l->fd, level, name, -1);
		l->guarded = l->guarded || !can;
		if ((l->cloned && !clones_follow(l, level, name, value, size)) || !can)
			refuse(l, OPTION);
	}
	unlock_tables(&held);
}
