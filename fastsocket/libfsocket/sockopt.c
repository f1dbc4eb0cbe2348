// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "real.h"
#include "sockopt.h"

/* An application that uses select() or counts its descriptors is unlikely to have plans for numbers from here on. */
#define OUR_FD_FLOOR 512

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

bool set_int(int fd, int level, int name, int value)
{
	return real.setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

int get_int(int fd, int level, int name, int missing)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return real.getsockopt(fd, level, name, &value, &size) ? missing : value;
}

static uint64_t get_cookie(int fd, int name)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	return real.getsockopt(fd, SOL_SOCKET, name, &cookie, &size) ? 0 : cookie;
}

uint64_t cookie_of(int fd)
{
	return get_cookie(fd, SO_COOKIE);
}

bool in_same_namespace(int fd, int other)
{
	uint64_t cookie = get_cookie(fd, SO_NETNS_COOKIE);

	return cookie && cookie == get_cookie(other, SO_NETNS_COOKIE);
}

bool is_tcp(int fd)
{
	return get_int(fd, SOL_SOCKET, SO_TYPE, -1) == SOCK_STREAM &&
	       get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

bool is_tcp_listener(int fd)
{
	int domain;

	if (!get_int(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
		return false;
	domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, -1);
	return (domain == AF_INET || domain == AF_INET6) && get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

bool sends_otherwise(int fd)
{
	struct linger linger = { 0 };
	socklen_t size = sizeof(linger);

	return real.getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) || linger.l_onoff ||
	       get_int(fd, IPPROTO_TCP, TCP_CORK, 1);
}

/* For a listener tcpi_sacked holds the backlog, and tcpi_unacked the queue: tcp_get_info() in net/ipv4/tcp.c. */
static struct tcp_info info_of(int fd)
{
	struct tcp_info info = { .tcpi_sacked = SOMAXCONN };
	socklen_t size = sizeof(info);

	real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info;
}

int backlog_of(int fd)
{
	return (int)info_of(fd).tcpi_sacked;
}

uint32_t queue_of(int fd)
{
	return info_of(fd).tcpi_unacked;
}

/* Under a low limit the floor is the limit's half. */
static int fd_floor(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur / 2 >= OUR_FD_FLOOR ? OUR_FD_FLOOR
	                                                                              : (int)(limit.rlim_cur / 2);
}

int out_of_the_way(int low)
{
	int high = low < 0 ? -1 : real.fcntl(low, F_DUPFD_CLOEXEC, fd_floor());

	if (low >= 0)
		real.close(low);
	return high;
}
