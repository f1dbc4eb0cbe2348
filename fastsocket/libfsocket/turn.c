// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

#include "answer_with_fin.h"
#include "defer_accept.h"
#include "delayed_ack.h"
#include "opening.h"
#include "real.h"
#include "settings.h"
#include "turn.h"

static bool has_parts(void)
{
	return settings.answer_with_fin || settings.delayed_ack || settings.defer_accept;
}

/*
 * The connection was closed without libc: forgets it. A program that closes without libc may also wait without libc, so
 * what its connections did counts for nothing.
 */
void known_turn_is_stale(int fd)
{
	answer_escapes(connection_remove(fd));
}

void turn_accepted(int fd, struct listener *l, bool nonblocking)
{
	uint64_t flags;

	turn_renews(fd);
	if (likely(!has_parts()) || !l || !l->is_wanted || (unsigned int)fd >= MAX_FDS || has_own_table)
		return;
	flags = answer_wishes(l) | ack_wishes(l) | defer_wishes(l);
	if (flags)
		connection_add(fd, (size_t)(l - listeners), flags | (nonblocking ? NONBLOCKING : 0));
}

static void waits(int fd, uint64_t state)
{
	answer_waits(fd, state);
	ack_waits(fd, state);
	opening_waits(fd, state);
	connection_drop(fd);
}

void turn_end(void)
{
	turn_finish(waits);
}

void known_turn_has_read(int fd, ssize_t received, int flags)
{
	if (received > 0 && !(flags & MSG_PEEK)) {
		defer_read(fd, connection(fd));
		ack_read(fd, connection(fd));
		opening_read(fd, connection(fd));
	}
}

void turn_has_written(int fd, ssize_t sent, size_t size, bool held)
{
	if (sent > 0) {
		defer_written(fd, connection(fd));
		ack_written(fd, connection(fd));
		opening_written(fd, connection(fd));
	}
	answer_written(fd, sent, size, held);
}

void known_turn_closes(int fd, uint64_t state)
{
	state = connection_remove(fd);
	answer_closes(fd, state);
}

static void leave_alone(int fd, uint64_t state)
{
	answer_leaves(fd, state);
	ack_at_once(fd, state);
}

void known_turn_leaves_alone(int fd)
{
	leave_alone(fd, connection_remove(fd));
}

void turn_leaves_all_alone(void)
{
	if (has_parts())
		connections_remove_all(leave_alone);
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

/* Does this option change nothing about when data leaves, or how? TCP_NODELAY makes the kernel send what is held. */
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
		answer_leaves(fd, connection_clear(fd, HELD | WRITTEN | HOLDS | WATCHED));
	else if (level == IPPROTO_TCP && name == TCP_QUICKACK) /* the application looks after its ACKs itself */
		connection_clear(fd, DELAYED | ASKED);
	else if (level == SOL_SOCKET && name == SO_RCVLOWAT) /* a request may wait in the kernel for its next segment */
		ack_at_once(fd, connection_clear(fd, DELAYED | ASKED));
}

void turn_watches(int fd)
{
	if (connection(fd) & READ)
		ack_alone(fd, connection_clear(fd, READ));
}

void turn_shows_queue(int fd)
{
	uint64_t state = connection(fd);

	if (state & HELD)
		answer_leaves(fd, connection_clear(fd, HELD));
}

/*
 * May a call block on this descriptor, which is no connection? A file does not block for long, and nothing blocks that
 * has O_NONBLOCK.
 */
static bool may_block(int fd)
{
	int saved_errno = errno, flags = real.fcntl(fd, F_GETFL);
	struct stat status;
	bool may = flags >= 0 && !(flags & O_NONBLOCK) && !fstat(fd, &status) && !S_ISREG(status.st_mode);

	errno = saved_errno;
	return may;
}

void turn_reads(int fd, int flags)
{
	uint64_t state = connection(fd);

	if (state & (HELD | WRITTEN))
		answer_waits(fd, connection_clear(fd, HELD | WRITTEN));
	turn_may_block(fd, flags);
}

void turn_may_block(int fd, int flags)
{
	uint64_t state = connection(fd);

	if (!(flags & MSG_DONTWAIT) && (state ? !(state & NONBLOCKING) : may_block(fd)))
		turn_end();
}
