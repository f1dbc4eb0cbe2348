// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "preload.h"
#include "answer_with_fin.h"
#include "passing.h"
#include "turn.h"

/* ---- writing ---- */

/*
 * A write to this connection may block. For all other connections to which the thread has written, that is a wait: what
 * is held on them leaves first.
 */
static void others_leave(int fd, int flags)
{
	if (turn_is_open() && !turn_is_about(fd))
		turn_may_block(fd, flags);
}

static size_t size_of(const struct iovec *parts, size_t n)
{
	size_t size = 0;

	for (size_t i = 0; i < n; i++)
		size += parts[i].iov_len;
	return size;
}

static ssize_t send_held(int fd, const void *data, size_t size, int flags, int more)
{
	ssize_t sent;

	others_leave(fd, flags);
	sent = REAL(send)(fd, data, size, flags | more);
	turn_has_written(fd, sent, size, more);
	return sent;
}

static ssize_t send_message(int fd, const struct msghdr *message, int flags, int more)
{
	ssize_t sent;

	others_leave(fd, flags);
	sent = REAL(sendmsg)(fd, message, flags | more);
	if (sent > 0)
		turn_has_written(fd, sent, size_of(message->msg_iov, message->msg_iovlen), more);
	return sent;
}

/* Has the write failed because the connection was closed without libc, and its number is a file's or a pipe's now? */
static bool is_no_socket(int fd, ssize_t sent)
{
	if (likely(sent >= 0 || errno != ENOTSOCK))
		return false;
	turn_renews(fd);
	return true;
}

/* A write() of nothing does not reach the socket, but a send() of nothing does. So it stays a write(). */
INTERPOSED ssize_t write(int fd, const void *data, size_t size)
{
	uint64_t state = connection(fd);
	int saved_errno = errno;
	ssize_t sent;

	if (likely(!state))
		return REAL(write)(fd, data, size);
	if (size && answer_flag(state, 0)) {
		sent = send_held(fd, data, size, 0, MSG_MORE);
		if (likely(!is_no_socket(fd, sent)))
			return sent;
		errno = saved_errno;
	}
	others_leave(fd, 0);
	sent = REAL(write)(fd, data, size);
	turn_has_written(fd, sent, size, false);
	return sent;
}

INTERPOSED ssize_t writev(int fd, const struct iovec *parts, int n)
{
	struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)n };
	uint64_t state = connection(fd);
	int saved_errno = errno;
	ssize_t sent;

	if (likely(!state))
		return REAL(writev)(fd, parts, n);
	if (n > 0 && n <= IOV_MAX && answer_flag(state, 0)) {
		sent = send_message(fd, &message, 0, MSG_MORE);
		if (likely(!is_no_socket(fd, sent)))
			return sent;
		errno = saved_errno;
	}
	others_leave(fd, 0);
	sent = REAL(writev)(fd, parts, n);
	if (sent > 0)
		turn_has_written(fd, sent, size_of(parts, (size_t)n), false);
	return sent;
}

INTERPOSED ssize_t send(int fd, const void *data, size_t size, int flags)
{
	uint64_t state = connection(fd);

	return likely(!state) ? REAL(send)(fd, data, size, flags)
	                      : send_held(fd, data, size, flags, answer_flag(state, flags));
}

/* A connected TCP socket ignores the address: tcp_sendmsg() in net/ipv4/tcp.c. */
INTERPOSED ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
	uint64_t state = connection(fd);
	int more;
	ssize_t sent;

	if (likely(!state))
		return REAL(sendto)(fd, data, size, flags, to, length);
	more = answer_flag(state, flags);
	others_leave(fd, flags);
	sent = REAL(sendto)(fd, data, size, flags | more, to, length);
	turn_has_written(fd, sent, size, more);
	return sent;
}

INTERPOSED ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	uint64_t state = connection(fd);
	ssize_t sent;

	if (!likely(!state))
		return send_message(fd, message, flags, answer_flag(state, flags));
	sent = REAL(sendmsg)(fd, message, flags);
	if (!likely(sent < 0 || !message->msg_control) && settings.enabled)
		descriptors_sent(message);
	return sent;
}

/* sendmmsg() holds nothing on a connection: the kernel says for each message how much of it was sent. */
INTERPOSED int sendmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags)
{
	int sent;

	others_leave(fd, flags);
	sent = REAL(sendmmsg)(fd, messages, n, flags);
	if (!likely(!connection(fd)))
		turn_has_written(fd, sent, (size_t)sent, false);
	for (int i = 0; settings.enabled && i < sent; i++)
		if (!likely(!messages[i].msg_hdr.msg_control))
			descriptors_sent(&messages[i].msg_hdr);
	return sent;
}

/* No flag makes the kernel hold what sendfile() sends. What was held before leaves with it. */
#define FORWARD_SENDFILE(name, offset_type)                                        \
	INTERPOSED ssize_t name(int out, int in, offset_type *offset, size_t size) \
	{                                                                          \
		ssize_t sent;                                                      \
                                                                                   \
		if (likely(!connection(out)))                                      \
			return REAL(name)(out, in, offset, size);                  \
		others_leave(out, 0);                                              \
		sent = REAL(name)(out, in, offset, size);                          \
		turn_has_written(out, sent, size, false);                          \
		return sent;                                                       \
	}
FORWARD_SENDFILE(sendfile, off_t)
FORWARD_SENDFILE(sendfile64, off64_t)

INTERPOSED ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned int flags)
{
	ssize_t sent;

	if (!(flags & SPLICE_F_NONBLOCK))
		turn_ends();
	sent = REAL(splice)(in, in_offset, out, out_offset, size, flags);
	turn_has_read(in, sent, 0);
	if (!likely(!connection(out)))
		turn_has_written(out, sent, (size_t)sent, false);
	return sent;
}

/* ---- reading ---- */

static void before_read(int fd, int flags)
{
	if (!likely(!(flags & MSG_WAITALL))) /* the thread may wait in the kernel for the other side's next segment */
		turn_leaves_alone(fd);
	if (turn_is_open())
		turn_reads(fd, flags);
}

INTERPOSED ssize_t read(int fd, void *data, size_t size)
{
	ssize_t received;

	before_read(fd, 0);
	received = REAL(read)(fd, data, size);
	turn_has_read(fd, received, 0);
	return received;
}

INTERPOSED ssize_t readv(int fd, const struct iovec *parts, int n)
{
	ssize_t received;

	before_read(fd, 0);
	received = REAL(readv)(fd, parts, n);
	turn_has_read(fd, received, 0);
	return received;
}

INTERPOSED ssize_t recv(int fd, void *data, size_t size, int flags)
{
	ssize_t received;

	before_read(fd, flags);
	received = REAL(recv)(fd, data, size, flags);
	turn_has_read(fd, received, flags);
	return received;
}

INTERPOSED ssize_t recvfrom(int fd, void *restrict data, size_t size, int flags, struct sockaddr *restrict from,
                            socklen_t *restrict length)
{
	ssize_t received;

	before_read(fd, flags);
	received = REAL(recvfrom)(fd, data, size, flags, from, length);
	turn_has_read(fd, received, flags);
	return received;
}

INTERPOSED ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t received;

	before_read(fd, flags);
	received = REAL(recvmsg)(fd, message, flags);
	turn_has_read(fd, received, flags);
	if (!likely(received < 0 || !message->msg_control) && settings.enabled)
		descriptors_received(message);
	return received;
}

INTERPOSED int recvmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags, struct timespec *timeout)
{
	int received;

	before_read(fd, flags);
	received = REAL(recvmmsg)(fd, messages, n, flags, timeout);
	turn_has_read(fd, received, flags);
	for (int i = 0; settings.enabled && i < received; i++)
		if (!likely(!messages[i].msg_hdr.msg_control))
			descriptors_received(&messages[i].msg_hdr);
	return received;
}

/* A program built with _FORTIFY_SOURCE calls these instead, with the size of its buffer. */
ssize_t __read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *restrict data, size_t size, size_t room, int flags, struct sockaddr *restrict from,
                       socklen_t *restrict length);
void __chk_fail(void) __attribute__((noreturn));

INTERPOSED ssize_t __read_chk(int fd, void *data, size_t size, size_t room)
{
	if (size > room)
		__chk_fail();
	return read(fd, data, size);
}

INTERPOSED ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags)
{
	if (size > room)
		__chk_fail();
	return recv(fd, data, size, flags);
}

INTERPOSED ssize_t __recvfrom_chk(int fd, void *restrict data, size_t size, size_t room, int flags,
                                  struct sockaddr *restrict from, socklen_t *restrict length)
{
	if (size > room)
		__chk_fail();
	return recvfrom(fd, data, size, flags, from, length);
}
