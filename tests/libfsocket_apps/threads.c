// SPDX-License-Identifier: MIT
/*
 * Threads that do to each other's connections what threads may: each accepts in an epoll of its own, and hands every
 * second connection to the next thread, which duplicates, registers or closes it. Prints how many were answered.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVERS 2
#define CLIENTS 2
#define CONNECTIONS 400

static int listener;
static struct sockaddr_in address = { .sin_family = AF_INET };
static int epolls[SERVERS];
static atomic_int answered, ended;
static pthread_barrier_t ready;

static void check(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static void pin(int i)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(i % 2, &one);
	check(sched_setaffinity(0, sizeof(one), &one), "sched_setaffinity");
}

static void watch(int epfd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	check(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event), "EPOLL_CTL_ADD");
}

static void answer(int epfd, int fd)
{
	char byte;

	if (read(fd, &byte, 1) != 1)
		return; /* level-triggered: again when there is something */
	check((int)write(fd, &byte, 1), "write");
	if (byte & 1) {
		int copy = dup(fd);

		check(copy, "dup");
		check(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL), "EPOLL_CTL_DEL");
		close(copy);
	}
	close(fd);
	atomic_fetch_add(&answered, 1);
}

static void accept_all(int i)
{
	static atomic_int turn;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		watch(epolls[(i + (atomic_fetch_add(&turn, 1) & 1)) % SERVERS], fd);
	if (errno != EAGAIN)
		check(-1, "accept4");
}

static void *serve(void *argument)
{
	int i = (int)(long)argument;
	struct epoll_event events[16];

	pin(i);
	epolls[i] = epoll_create1(0);
	check(epolls[i], "epoll_create1");
	watch(epolls[i], listener);
	pthread_barrier_wait(&ready);
	while (atomic_load(&ended) < CLIENTS) {
		int n = epoll_wait(epolls[i], events, 16, 50);

		check(n, "epoll_wait");
		for (int j = 0; j < n; j++) {
			if (events[j].data.fd == listener)
				accept_all(i);
			else
				answer(epolls[i], events[j].data.fd);
		}
	}
	return NULL;
}

static void *ask(void *argument)
{
	char byte = 0;

	pin((int)(long)argument);
	pthread_barrier_wait(&ready);
	for (int i = 0; i < CONNECTIONS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		check(fd, "socket");
		check(connect(fd, (struct sockaddr *)&address, sizeof(address)), "connect");
		byte = (char)i;
		check((int)write(fd, &byte, 1), "write");
		check((int)read(fd, &byte, 1), "read");
		close(fd);
	}
	atomic_fetch_add(&ended, 1);
	return NULL;
}

int main(void)
{
	pthread_t threads[SERVERS + CLIENTS];
	socklen_t size = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	check(listener, "socket");
	check(bind(listener, (struct sockaddr *)&address, size), "bind");
	check(listen(listener, 512), "listen");
	check(getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
	pthread_barrier_init(&ready, NULL, SERVERS + CLIENTS);
	for (long i = 0; i < SERVERS + CLIENTS; i++)
		pthread_create(&threads[i], NULL, i < SERVERS ? serve : ask, (void *)(i < SERVERS ? i : i - SERVERS));
	for (int i = 0; i < SERVERS + CLIENTS; i++)
		pthread_join(threads[i], NULL);
	close(listener);
	printf("%d\n", atomic_load(&answered));
	return 0;
}
