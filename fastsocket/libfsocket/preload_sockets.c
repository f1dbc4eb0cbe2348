// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>

#include "preload.h"
#include "accept.h"
#include "closing.h"
#include "delayed_ack.h"
#include "flow_deliver.h"
#include "follow.h"
#include "listeners.h"
#include "mark.h"
#include "opening.h"
#include "options.h"
#include "sockopt.h"
#include "turn.h"

static bool makes_tcp(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP);
}

INTERPOSED int socket(int domain, int type, int protocol)
{
	int fd;

	fd = REAL(socket)(domain, type, protocol);
	turn_renews(fd);
	if (fd >= 0)
		new_descriptor(fd, makes_tcp(domain, type, protocol) ? OPENED : PLAIN); /* until it listens */
	return fd;
}

static bool may_choose_port(int fd)
{
	enum descriptor kind = descriptor(fd);

	return settings.flow_deliver && (kind == OPENED || kind == DELIVERED || kind == UNKNOWN || kind == GUARDED);
}

INTERPOSED int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	return may_choose_port(fd) ? flow_deliver_bind(fd, addr, len) : REAL(bind)(fd, addr, len);
}

/* The application may call connect() again to see whether the connection is there. */
INTERPOSED int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	uint64_t opening = 0;
	int result;

	if (turn_is_open())
		turn_may_block(fd, 0);
	if (!(connection(fd) & OPENING)) {
		turn_leaves_alone(fd);
		if (!likely(!settings.delayed_ack))
			opening = opening_begins(fd, addr, len);
	}
	result = may_choose_port(fd) ? flow_deliver_connect(fd, addr, len) : REAL(connect)(fd, addr, len);
	if (!likely(descriptor(fd) != LISTENER) && (result == 0 || errno == EINPROGRESS)) /* it listens no more */
		clones_end(find_listener(fd));
	if (!likely(!opening))
		opening_goes_on(fd, opening, result);
	return result;
}

INTERPOSED int listen(int fd, int backlog)
{
	int result;

	result = REAL(listen)(fd, backlog);
	if (result == 0 && settings.enabled && !listeners_listen(fd, backlog)) {
		REAL(shutdown)(fd, SHUT_RD);
		errno = EOPNOTSUPP;
		return -1;
	}
	return result;
}

static int accepted(int fd, struct listener *l, int flags)
{
	if (fd >= 0) {
		new_descriptor(fd, l && settings.fast_epoll ? FRESH : PLAIN);
		turn_accepted(fd, l, flags & SOCK_NONBLOCK);
	}
	return fd;
}

static struct listener *listener_to_accept_from(int fd)
{
	struct listener *l;

	if (likely(descriptor(fd) != LISTENER)) {
		turn_ends();
		return NULL;
	}
	notice_copy();
	l = find_listener(fd);
	if (!l || l->blocks)
		turn_ends();
	return l;
}

INTERPOSED int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct listener *l = listener_to_accept_from(fd);

	if (likely(!l))
		return accepted(REAL(accept4)(fd, addr, len, flags), NULL, flags);
	return accepted(accept_any(&(struct acceptance){ l, fd, addr, len, flags }), l, flags);
}

INTERPOSED int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct listener *l = listener_to_accept_from(fd);

	if (likely(!l))
		return accepted(REAL(accept)(fd, addr, len), NULL, 0);
	return accepted(accept_any(&(struct acceptance){ l, fd, addr, len, 0 }), l, 0);
}

/*
 * Adds the clones' queues to the answer: the application asks for the length of its accept queue, and they are part of
 * it.
 */
static void add_queue_of_clones(const struct listener *l, void *info, socklen_t size)
{
	char *unacked = (char *)info + offsetof(struct tcp_info, tcpi_unacked);
	uint32_t length;

	if (size < offsetof(struct tcp_info, tcpi_unacked) + sizeof(length))
		return;
	memcpy(&length, unacked, sizeof(length));
	length += clones_queue(l);
	memcpy(unacked, &length, sizeof(length));
}

/*
 * Has the library set this option of a listener? Then *value becomes what the application has set. If connect() has
 * made a listener a client, the library's mark is gone with its first packet: the kernel wrote that packet's CPU over
 * the mark.
 */
static bool is_ours(const struct listener *l, int level, int name, int *value)
{
	if (level == SOL_SOCKET && name == SO_REUSEPORT && l->cloned)
		*value = l->own_reuseport;
	else if (level == SOL_SOCKET && name == SO_INCOMING_CPU && is_mark(*value))
		*value = l->own_incoming_cpu;
	else if (level == IPPROTO_TCP && name == TCP_QUICKACK && acks_are_delayed(l))
		*value = 1;
	else if (level == IPPROTO_TCP && name == TCP_DEFER_ACCEPT && l->defers_accept)
		*value = 0;
	else
		return false;
	return true;
}

/* The application is told what it set itself, not what the library set. */
INTERPOSED int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
	struct listener *l = find_listener(fd);
	int result, own = 0;

	if (!likely(!connection(fd)) && level == IPPROTO_TCP && name == TCP_INFO)
		turn_shows_queue(fd);
	result = REAL(getsockopt)(fd, level, name, value, size);
	if (!likely(!l) && result == 0 && *size &&
	    *size <= sizeof(own)) { /* the kernel gives as many bytes as are asked for */
		memcpy(&own, value, *size);
		if (is_ours(l, level, name, &own))
			memcpy(value, &own, *size);
	}
	if (!likely(!l) && result == 0 && level == IPPROTO_TCP && name == TCP_INFO && l->cloned)
		add_queue_of_clones(l, value, *size);
	if (!likely(!settings.flow_deliver) && result == 0 && flow_deliver_hides(fd, level, name))
		memset(value, 0, *size);
	return result;
}

/* The socket may listen later. If a clone of it cannot get this option too, the socket becomes GUARDED. */
static void note_option(int fd, int level, int name)
{
	enum descriptor kind = descriptor(fd);
	int saved_errno = errno;

	if (settings.enabled && (kind == OPENED || kind == UNKNOWN) && !option_can_be_copied(fd, level, name) &&
	    get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP)
		set_descriptor(fd, GUARDED);
	errno = saved_errno;
}

INTERPOSED int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	struct listener *l = find_listener(fd);
	int result;

	if (!likely(!connection(fd)))
		turn_sets_option(fd, level, name);
	result = REAL(setsockopt)(fd, level, name, value, size);
	if (!likely(!l) && result == 0)
		clones_setsockopt(l, level, name, value, size);
	else if (result == 0 && descriptor(fd) != PLAIN)
		note_option(fd, level, name);
	if (!likely(!settings.flow_deliver) && result == 0)
		flow_deliver_setsockopt(fd, level, name);
	return result;
}

INTERPOSED int shutdown(int fd, int how)
{
	struct listener *l = find_listener(fd);
	int result;

	if (!likely(!settings.flow_deliver))
		flow_deliver_any_port(fd);
	if (!likely(!connection(fd)))
		turn_shuts_down(fd, how);
	result = REAL(shutdown)(fd, how);
	if (!likely(!l) && result == 0)
		clones_shutdown(l, how);
	return result;
}
