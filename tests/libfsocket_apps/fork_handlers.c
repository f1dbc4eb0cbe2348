// SPDX-License-Identifier: MIT
/* Handlers of fork() that are registered before the program starts, and listen, watch and close. */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void listen_and_close(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epfd = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };

	if (!listen(fd, 1) && !epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event))
		epoll_wait(epfd, &event, 1, 0);
	close(epfd);
	close(fd);
}

__attribute__((constructor)) static void load(void)
{
	pthread_atfork(listen_and_close, listen_and_close, listen_and_close);
}
