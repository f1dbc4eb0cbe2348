// SPDX-License-Identifier: MIT
/* What makes a socket the clone of a listener: its kind, its address, its options (socket(7), tcp(7), ip(7)). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "fsocket.h"

/* Descriptors that a select()-style or fd-counting application is unlikely to have plans for. */
#define OUR_FD_FLOOR 512

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

uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	return real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) ? 0 : cookie;
}

struct option {
	int level, name;
};

/* What decides where a socket may be bound has to be there before bind(). */
static const struct option before_bind[] = {
	{ SOL_SOCKET, SO_REUSEADDR }, { IPPROTO_IPV6, IPV6_V6ONLY }, { IPPROTO_IP, IP_FREEBIND },
	{ IPPROTO_IP, IP_TRANSPARENT }, { SOL_SOCKET, SO_BINDTOIFINDEX }, { SOL_SOCKET, SO_MARK },
};

/* The rest is inherited by accepted sockets; applications set some of it after listen(), so copy it on adoption. */
static const struct option before_listen[] = {
	{ SOL_SOCKET, SO_KEEPALIVE }, { SOL_SOCKET, SO_PRIORITY }, { SOL_SOCKET, SO_RCVLOWAT },
	{ SOL_SOCKET, SO_BUSY_POLL }, { SOL_SOCKET, SO_OOBINLINE },
	{ IPPROTO_IP, IP_TOS }, { IPPROTO_IP, IP_TTL }, { IPPROTO_IP, IP_MTU_DISCOVER },
	{ IPPROTO_IPV6, IPV6_TCLASS }, { IPPROTO_IPV6, IPV6_UNICAST_HOPS },
	{ IPPROTO_TCP, TCP_NODELAY }, { IPPROTO_TCP, TCP_DEFER_ACCEPT }, { IPPROTO_TCP, TCP_KEEPIDLE },
	{ IPPROTO_TCP, TCP_KEEPINTVL }, { IPPROTO_TCP, TCP_KEEPCNT }, { IPPROTO_TCP, TCP_SYNCNT },
	{ IPPROTO_TCP, TCP_LINGER2 }, { IPPROTO_TCP, TCP_USER_TIMEOUT }, { IPPROTO_TCP, TCP_FASTOPEN },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT }, { IPPROTO_TCP, TCP_SAVE_SYN }, { IPPROTO_TCP, TCP_WINDOW_CLAMP },
	{ IPPROTO_TCP, TCP_MAXSEG },
};


/* Set on the clone what differs; an option the kernel or the socket family lacks differs nowhere. */
static bool copy_options(int from, int to, const struct option *option, size_t n)
{
	for (; n; n--, option++) {
		int wanted = get_int(from, option->level, option->name, -1);

		if (wanted != get_int(to, option->level, option->name, -1) &&
		    !set_int(to, option->level, option->name, wanted))
			return false;
	}
	return true;
}

/* The kernel doubles what SO_RCVBUF sets, and a value never set must stay the kernel's to tune. */
static bool copy_buffer_size(int from, int to, int name)
{
	int wanted = get_int(from, SOL_SOCKET, name, -1);

	return wanted == get_int(to, SOL_SOCKET, name, -1) || set_int(to, SOL_SOCKET, name, wanted / 2);
}

static bool copy_timeout(int from, int to, int name)
{
	struct timeval timeout;
	socklen_t size = sizeof(timeout);

	return !real.getsockopt(from, SOL_SOCKET, name, &timeout, &size) &&
	       !real.setsockopt(to, SOL_SOCKET, name, &timeout, sizeof(timeout));
}

/* A socket filter decides who may connect; we cannot be sure to copy all of it, so such a listener is left alone. */
bool has_filter(int fd)
{
	socklen_t instructions = 0;

	return !real.getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &instructions) && instructions > 0;
}

bool copy_rest(int from, int to)
{
	char congestion[16] = "", theirs[16] = "";
	struct linger linger = { 0 };
	socklen_t size = sizeof(linger), length = sizeof(congestion);

	if (!copy_options(from, to, before_listen, COUNT(before_listen)) ||
	    !copy_buffer_size(from, to, SO_RCVBUF) || !copy_buffer_size(from, to, SO_SNDBUF) ||
	    !copy_timeout(from, to, SO_RCVTIMEO) || !copy_timeout(from, to, SO_SNDTIMEO) ||
	    real.getsockopt(from, SOL_SOCKET, SO_LINGER, &linger, &size) ||
	    real.setsockopt(to, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) ||
	    real.getsockopt(from, IPPROTO_TCP, TCP_CONGESTION, congestion, &length))
		return false;
	length = sizeof(theirs);
	if (real.getsockopt(to, IPPROTO_TCP, TCP_CONGESTION, theirs, &length) || strcmp(congestion, theirs) == 0)
		return true;
	return real.setsockopt(to, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)) == 0;
}

int out_of_the_way(int low)
{
	int high = low < 0 ? -1 : real.fcntl(low, F_DUPFD_CLOEXEC, OUR_FD_FLOOR);

	if (high < 0) /* the descriptor limit is below the floor */
		return low;
	real.close(low);
	return high;
}

/* An unbound socket of the listener's kind. */
static int socket_like(int fd)
{
	int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, AF_INET);

	return out_of_the_way(real.socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
}

int bind_clone(int fd, int cpu)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	int copy = socket_like(fd);

	if (copy < 0)
		return -1;
	if (copy < MAX_FDS && !getsockname(fd, (struct sockaddr *)&address, &size) &&
	    copy_options(fd, copy, before_bind, COUNT(before_bind)) &&
	    set_int(copy, SOL_SOCKET, SO_REUSEPORT, 1) && set_int(copy, SOL_SOCKET, SO_INCOMING_CPU, cpu) &&
	    !real.bind(copy, (struct sockaddr *)&address, size))
		return copy;
	real.close(copy);
	return -1;
}
