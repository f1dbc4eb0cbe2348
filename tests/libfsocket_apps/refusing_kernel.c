/*
 * A kernel that refuses what the library asks for, as older, smaller or fuller ones do. Preloaded behind libfsocket.so,
 * this library gets the calls that libfsocket.so makes, and REFUSE names the calls that fail.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#define FIRST_CLONE 512 /* libfsocket/sockopt.c */
#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static bool refuses(const char *what)
{
	const char *refused = getenv("REFUSE");

	return refused && strcmp(refused, what) == 0;
}

static int fails(int error)
{
	errno = error;
	return -1;
}

static bool is_in_a_group(int fd)
{
	int set = 0;
	socklen_t size = sizeof(set);

	return !getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &set, &size) && set;
}

int memfd_create(const char *name, unsigned int flags)
{
	return refuses("memory") ? fails(ENFILE) : NEXT(memfd_create)(name, flags);
}

int uname(struct utsname *system)
{
	int result = NEXT(uname)(system);

	if (refuses("nothing, but it is old") || refuses("SO_INCOMING_CPU"))
		strcpy(system->release, "6.1.0");
	return result;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	if (refuses("SO_REUSEPORT") && level == SOL_SOCKET && name == SO_REUSEPORT && *(const int *)value)
		return fails(EPERM);
	if (refuses("SO_INCOMING_CPU") && level == SOL_SOCKET && name == SO_INCOMING_CPU)
		return 0;
	return NEXT(setsockopt)(fd, level, name, value, size);
}

int socket(int domain, int type, int protocol)
{
	return refuses("netlink") && domain == AF_NETLINK ? fails(EAFNOSUPPORT) : NEXT(socket)(domain, type, protocol);
}

int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	return refuses("clones") && is_in_a_group(fd) ? fails(EADDRINUSE) : NEXT(bind)(fd, addr, len);
}

int listen(int fd, int backlog)
{
	return refuses("listening clones") && is_in_a_group(fd) ? fails(ENOBUFS) : NEXT(listen)(fd, backlog);
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	return refuses("watched clones") && op == EPOLL_CTL_ADD && fd >= FIRST_CLONE
		       ? fails(ENOSPC)
		       : NEXT(epoll_ctl)(epfd, op, fd, event);
}

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus)
{
	return refuses("affinity") ? fails(EPERM) : NEXT(sched_getaffinity)(pid, size, cpus);
}
