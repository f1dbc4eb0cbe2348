// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "descriptors.h"
#include "fast_epoll.h"
#include "flow_deliver.h"
#include "listeners.h"
#include "mark.h"
#include "passing.h"
#include "settings.h"
#include "sockopt.h"
#include "turn.h"
#include "withdrawal.h"

/*
 * The kernel has accepted the message, so the message can be read and has control data where it says. Lengths are
 * checked all the same, because the application may change them at any time.
 */
static void for_each_passed(const struct msghdr *message, void (*visit)(int fd))
{
	struct msghdr *readable =
		(struct msghdr *)message; /* CMSG_NXTHDR() takes no pointer to const, and changes nothing */

	for (struct cmsghdr *header = CMSG_FIRSTHDR(readable); header; header = CMSG_NXTHDR(readable, header)) {
		size_t room = (size_t)((char *)message->msg_control + message->msg_controllen - (char *)header);
		size_t length = header->cmsg_len < room ? header->cmsg_len : room;

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS || length < CMSG_LEN(0))
			continue;
		for (size_t i = 0; i < (length - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
			visit(fd);
		}
	}
}

/*
 * The application has sent this descriptor. If it is a listener, its clones are withdrawn, unless the receiver has
 * taken over already: then the mark names the receiver's process.
 */
static void is_sent(int fd)
{
	struct listener *l = find_listener(fd);
	struct held held;

	turn_leaves_alone(fd);
	fast_epoll_settle(fd);
	fast_epoll_shared(fd);
	if (settings.flow_deliver)
		flow_deliver_shared(fd);
	if (!l)
		return;
	lock_tables(&held);
	if (find_listener(fd) == l && !is_marked_by_successor(l))
		withdraw(l);
	unlock_tables(&held);
}

static void is_received(int fd)
{
	turn_renews(fd);
	if (descriptor(fd) != LISTENER && descriptor(fd) != CLONE)
		set_descriptor(fd, UNKNOWN);
	if (get_int(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
		listeners_discover(fd, RECEIVED);
}

void descriptors_sent(const struct msghdr *message)
{
	int saved_errno = errno;

	for_each_passed(message, is_sent);
	errno = saved_errno;
}

void descriptors_received(const struct msghdr *message)
{
	int saved_errno = errno;

	for_each_passed(message, is_received);
	errno = saved_errno;
}
