// SPDX-License-Identifier: MIT
/*
 * A server that calls as little as a server can: two_workers CPU CPU. Says its port, answers each connection from two
 * pinned workers, and ends when its stdin does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(long result)
{
	if (result < 0)
		_exit(1);
}

static void watch(int epfd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	check(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
}

static void work(int listener, int end, int cpu)
{
	int epfd = epoll_create1(0);
	struct epoll_event event;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	check(sched_setaffinity(0, sizeof(one), &one));
	watch(epfd, listener);
	watch(epfd, end);
	check((int)write(1, "\"ready\"\n", 8));
	for (;;) {
		int fd;

		fd = epoll_wait(epfd, &event, 1, -1);
		if (fd < 0 && errno == EINTR) /* it was stopped, and goes on */
			continue;
		check(fd);
		if (event.data.fd == end)
			_exit(0);
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd < 0)
			continue;
		check((int)write(fd, "ok", 2));
		close(fd);
	}
}

int main(int argc, char *argv[])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), end[2], status;
	socklen_t size = sizeof(address);
	char text[16];

	check(pipe(end));
	check(bind(listener, (struct sockaddr *)&address, size));
	check(listen(listener, 64));
	check(getsockname(listener, (struct sockaddr *)&address, &size));
	check((int)write(1, text, (size_t)snprintf(text, sizeof(text), "%d\n", ntohs(address.sin_port))));
	for (int i = 1; i < argc; i++)
		if (fork() == 0) {
			close(end[1]);
			work(listener, end[0], atoi(argv[i]));
		}
	while (read(0, text, sizeof(text)) > 0)
		;
	close(end[1]);
	for (int i = 1; i < argc; i++)
		if (wait(&status) < 0 || status)
			return 1;
	return 0;
}
