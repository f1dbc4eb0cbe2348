// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "connections.h"
#include "defer_accept.h"
#include "log.h"
#include "settings.h"
#include "shared.h"
#include "sockopt.h"

/* The shortest time that the kernel knows: until it has sent the first SYN-ACK again, which is after a second. */
#define SECONDS 1

/* If the application has set TCP_DEFER_ACCEPT itself, its value stays. */
void defer_accept_of(struct listener *l)
{
	l->defers_accept = settings.defer_accept && l->is_wanted && l->origin == LISTENED &&
	                   get_int(l->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1) == 0 &&
	                   set_int(l->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, SECONDS);
}

uint64_t defer_wishes(const struct listener *l)
{
	return l->defers_accept ? SILENT : 0;
}

static void accept_at_once(struct listener *l)
{
	struct held held;

	lock_tables(&held);
	set_int(l->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
	for_each_clone(cpu, l)
		set_int(atomic_load(&l->clone[cpu].fd), IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
	unlock_tables(&held);
}

void defer_read(int fd, uint64_t state)
{
	if (state & SILENT)
		connection_clear(fd, SILENT);
}

void defer_written(int fd, uint64_t state)
{
	struct listener *l = &listeners[listener_of(state)];

	if (!(state & SILENT))
		return;
	connection_clear(fd, SILENT);
	count(&counters_here()->spoken_first);
	if (!l->generation || !atomic_exchange(&l->defers_accept, false))
		return;
	accept_at_once(l);
	fsocket_log("FSOCKET_DEFER_ACCEPT: this server writes before it reads; its connections are accepted at once");
}
