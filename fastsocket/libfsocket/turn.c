// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "answer_with_fin.h"
#include "real.h"
#include "settings.h"
#include "turn.h"

/* A program that closes without libc may also wait without libc, so what its connections did counts for nothing. */
void known_turn_is_stale(int fd)
{
	answer_escapes(connection_remove(fd));
}

void turn_accepted(int fd, const struct listener *l, bool nonblocking)
{
	uint64_t flags;

	turn_renews(fd);
	if (likely(!settings.answer_with_fin) || !l || (unsigned int)fd >= MAX_FDS || has_own_table)
		return;
	flags = answer_wishes(l);
	if (flags)
		connection_add(fd, l, flags | (nonblocking ? NONBLOCKING : 0));
}

void turn_end(void)
{
	turn_finish(answer_waits);
}

void known_turn_closes(int fd, uint64_t state)
{
	state = connection_remove(fd);
	answer_closes(fd, state);
}

void known_turn_leaves_alone(int fd)
{
	answer_leaves(fd, connection_remove(fd));
}

void turn_leaves_all_alone(void)
{
	if (settings.answer_with_fin)
		connections_remove_all(answer_leaves);
}

void turn_sets_blocking(int fd)
{
	int saved_errno = errno, flags = real.fcntl(fd, F_GETFL);

	if (flags >= 0 && flags & O_NONBLOCK)
		connection_set(fd, NONBLOCKING);
	else
		connection_clear(fd, NONBLOCKING);
	errno = saved_errno;
}

void turn_shuts_down(int fd, int how)
{
	uint64_t state = connection(fd);

	if (state && how != SHUT_RD)
		answer_shuts_down(fd, state);
}

/* Options that say nothing about when data leaves, or how. TCP_NODELAY sends what is held by itself. */
static bool is_harmless(int level, int name)
{
	if (level == SOL_SOCKET)
		return name == SO_KEEPALIVE || name == SO_RCVBUF || name == SO_RCVTIMEO || name == SO_SNDTIMEO ||
		       name == SO_RCVLOWAT || name == SO_OOBINLINE;
	return level == IPPROTO_TCP && (name == TCP_NODELAY || name == TCP_QUICKACK || name == TCP_KEEPIDLE ||
	                                name == TCP_KEEPINTVL || name == TCP_KEEPCNT || name == TCP_DEFER_ACCEPT);
}

void turn_sets_option(int fd, int level, int name)
{
	if (!is_harmless(level, name))
		turn_leaves_alone(fd);
}

void turn_shows_queue(int fd)
{
	uint64_t state = connection(fd);

	if (state & HELD)
		answer_leaves(fd, connection_clear(fd, HELD));
}

void turn_reads(int fd, int flags)
{
	uint64_t state = connection(fd);

	if (state & OF_TURN)
		answer_waits(fd, connection_clear(fd, OF_TURN));
	turn_may_block(fd, flags);
}

void turn_may_block(int fd, int flags)
{
	if (!(connection(fd) & NONBLOCKING) && !(flags & MSG_DONTWAIT))
		turn_end();
}
