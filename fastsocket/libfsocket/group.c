// SPDX-License-Identifier: MIT
/*
 * All listeners with SO_REUSEPORT on one address are one group to the kernel, whichever program opened them. Clones in
 * the group take the SYNs of their CPUs, and what the library sets on the group holds for all its members. So the
 * library asks the kernel for all listeners of the address (sock_diag(7)). If another server has opened one, the
 * library leaves the group alone.
 */
#define _GNU_SOURCE
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "group.h"
#include "real.h"

#define ANSWER_MS 100

enum answer { OURS, FOREIGN, NO_ANSWER };

static bool is_known(const struct listener *l, uint64_t cookie)
{
	for (size_t i = 0; i < MAX_LISTENERS; i++)
		if (listeners[i].generation && listeners[i].cookie == cookie)
			return true;
	for (size_t i = 0; i < COUNT(l->shared->shard); i++)
		if (l->shared->shard[i] == cookie)
			return true;
	for_each_clone(cpu, l)
		if (l->clone[cpu].cookie == cookie)
			return true;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (l->shared->seat[cpu].cookie == cookie)
			return true;
	return cookie == l->cookie;
}

static bool is_same_address(const struct listener *l, const struct inet_diag_msg *found)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&l->address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&l->address;

	return l->address.ss_family == AF_INET
		       ? v4->sin_addr.s_addr == found->id.idiag_src[0]
		       : memcmp(&v6->sin6_addr, found->id.idiag_src, sizeof(v6->sin6_addr)) == 0;
}

static bool ask(int netlink, const struct listener *l)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} message = {
		.header = { .nlmsg_len = sizeof(message),
		            .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .sdiag_family = (uint8_t)l->address.ss_family,
		             .sdiag_protocol = IPPROTO_TCP,
		             .idiag_states = 1U << TCP_LISTEN,
		             .id.idiag_sport = ((const struct sockaddr_in *)&l->address)->sin_port },
	};

	return real.send(netlink, &message, sizeof(message), 0) == (ssize_t)sizeof(message);
}

/* Reads one datagram of the answer. Returns whether more follow. */
static bool read_part(const struct listener *l, const void *part, size_t size, enum answer *answer)
{
	for (const struct nlmsghdr *header = part; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size)) {
		const struct inet_diag_msg *found = NLMSG_DATA(header);
		uint64_t cookie;

		if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY)
			return false;
		memcpy(&cookie, found->id.idiag_cookie, sizeof(cookie));
		if (cookie == l->cookie &&
		    *answer == NO_ANSWER) /* so the answer is about the right network namespace */
			*answer = OURS;
		else if (is_same_address(l, found) && !is_known(l, cookie))
			*answer = FOREIGN;
	}
	return true;
}

static enum answer members(const struct listener *l)
{
	struct timeval soon = { .tv_usec = ANSWER_MS * 1000L };
	int netlink = real.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	enum answer answer = NO_ANSWER;
	/*
	 * Part of a dump is no longer than a page, or than 8192 bytes: NLMSG_GOODSIZE in include/linux/netlink.h. The
	 * tables are locked, and the stack of a thread may be small.
	 */
	static char part[8192] __attribute__((aligned(8)));
	ssize_t size;

	if (netlink < 0)
		return NO_ANSWER;
	real.setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	if (ask(netlink, l))
		do
			size = real.recv(netlink, part, sizeof(part), 0);
		while (size > 0 && read_part(l, part, (size_t)size, &answer));
	real.close(netlink);
	return answer;
}

/*
 * If the kernel does not answer, a listener counts as the only one unless the application set SO_REUSEPORT on it
 * itself.
 */
bool group_is_ours(const struct listener *l)
{
	enum answer answer = members(l);

	return answer == OURS || (answer == NO_ANSWER && !l->own_reuseport);
}
