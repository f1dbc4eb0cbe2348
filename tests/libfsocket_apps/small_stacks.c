// SPDX-License-Identifier: MIT
/*
 * A thread with the smallest stack that there is makes each call that the library does something in: small_stacks CPU.
 * Prints "ok".
 */
#define _GNU_SOURCE
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int listener, epfd;
static char *many_variables[1001];

static void do_listen(void)
{
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (listen(listener, 64))
		exit(1);
}

static void do_wait(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	epfd = epoll_create1(0);
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &event))
		exit(1);
	for (int i = 0; i < 2; i++)
		epoll_wait(epfd, &event, 1, 600);
}

static void do_accept(void)
{
	struct sockaddr_in address;
	socklen_t size = sizeof(address);
	int client = socket(AF_INET, SOCK_STREAM, 0);

	getsockname(listener, (struct sockaddr *)&address, &size);
	if (connect(client, (struct sockaddr *)&address, size))
		exit(1);
	poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 300);
	accept4(listener, NULL, NULL, 0);
}

static void do_poll(void)
{
	struct pollfd one = { .fd = listener, .events = POLLIN };
	struct timeval time = { .tv_usec = 200000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(listener, &set);
	poll(&one, 1, 200);
	select(listener + 1, &set, NULL, NULL, &time);
}

static void do_execute(void)
{
	char *arguments[] = { "true", NULL };
	int status;

	if (fork() == 0) {
		execve("/nonexistent", arguments, many_variables);
		execvpe("true", arguments, many_variables);
		_exit(1);
	}
	if (wait(&status) < 0 || status)
		exit(1);
}

static void do_close(void)
{
	close(epfd);
	close(listener);
}

static void *run(void *unused)
{
	do_listen();
	do_wait();
	do_accept();
	do_poll();
	do_execute();
	do_close();
	return unused;
}

int main(int argc, char *argv[])
{
	pthread_attr_t attributes;
	pthread_t thread;
	cpu_set_t one;

	for (int i = 0; i < 1000; i++)
		many_variables[i] = strdup("A_VARIABLE=value");
	CPU_ZERO(&one);
	CPU_SET(argc > 1 ? atoi(argv[1]) : 0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	pthread_attr_init(&attributes);
	if (pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN) ||
	    pthread_create(&thread, &attributes, run, NULL))
		return 1;
	pthread_join(thread, NULL);
	printf("\"ok\"\n");
	return 0;
}
