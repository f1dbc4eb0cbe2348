// SPDX-License-Identifier: MIT
/*
 * A process that changes what its numbers mean in ways that no libc call tells of: identity WAY CPU. Prints "ok", or what
 * went wrong. Two listeners, A and B, and an epoll that watches A, with a clone where the library is there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int a, b, epfd;
static struct sockaddr_in address_of_a, address_of_b;

static void must(bool is_so, const char *what)
{
	if (is_so)
		return;
	printf("\"%s: %s\"\n", what, strerror(errno));
	fflush(stdout);
	_exit(0);
}

static int listener(struct sockaddr_in *ret_address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	socklen_t size = sizeof(*ret_address);

	*ret_address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	must(!bind(fd, (struct sockaddr *)ret_address, size), "bind");
	must(!listen(fd, 64), "listen");
	must(!getsockname(fd, (struct sockaddr *)ret_address, &size), "getsockname");
	return fd;
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	must(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "EPOLL_CTL_ADD");
}

static int client(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(fd >= 0 && !connect(fd, (const struct sockaddr *)address, sizeof(*address)), "connect");
	return fd;
}

/* Both listeners are served, each by its own name, and by no other. */
static void both_serve(int epoll, int name_of_a, int name_of_b)
{
	struct epoll_event event;
	int to_a = client(&address_of_a), to_b, got;

	must(epoll_wait(epoll, &event, 1, 3000) == 1 && event.data.fd == name_of_a, "no event of A");
	if (name_of_b >= 0)
		must(accept(name_of_b, NULL, NULL) < 0 && errno == EAGAIN, "B accepted a connection of A");
	got = accept(name_of_a, NULL, NULL);
	must(got >= 0, "A did not accept");
	close(got);
	close(to_a);
	must(epoll_wait(epoll, &event, 1, 0) == 0, "an event that nobody waits for");
	if (name_of_b < 0)
		return;
	to_b = client(&address_of_b);
	must(poll(&(struct pollfd){ .fd = name_of_b, .events = POLLIN }, 1, 3000) == 1, "B is not ready");
	must((got = accept(name_of_b, NULL, NULL)) >= 0, "B did not accept");
	close(got);
	close(to_b);
}

/* A's number becomes B's. */
static void swap_by_system_call(void)
{
	must(syscall(SYS_dup3, b, a, O_CLOEXEC) == a, "dup3");
}

static void serve_b_by_the_number_of_a(void)
{
	int to_b, got;

	must(accept(a, NULL, NULL) < 0 && errno == EAGAIN, "something to accept before anybody connected");
	to_b = client(&address_of_b);
	must(poll(&(struct pollfd){ .fd = a, .events = POLLIN }, 1, 3000) == 1, "B is not ready");
	must((got = accept(a, NULL, NULL)) >= 0, "B did not accept");
	close(got);
	close(to_b);
}

static void in_child(pid_t child)
{
	int status;

	must(child > 0 && waitpid(child, &status, 0) == child, "no child");
	must(status == 0, "the child failed");
}

static void closed_by_system_call(void)
{
	int epoll = epoll_create1(0);
	struct epoll_event event;

	must(epoll_wait(epfd, &event, 1, 0) == 0, "an event at the start");
	syscall(SYS_close, epfd);
	must(dup2(epoll, epfd) == epfd, "dup2");
	must(epoll_wait(epfd, &event, 1, 600) == 0, "an epoll that watches nothing reports something");
	must(client(&address_of_a) >= 0 && epoll_wait(epfd, &event, 1, 600) == 0,
	     "an epoll reports what it does not watch");
	must(accept(a, NULL, NULL) >= 0, "A did not accept");
}

static void listener_closed_by_system_call(void)
{
	syscall(SYS_close, a);
	must(fcntl(b, F_DUPFD, a) == a, "F_DUPFD");
	serve_b_by_the_number_of_a();
}

static void epoll_number_reused(void)
{
	struct epoll_event event;
	int first = epfd;

	close(epfd);
	epfd = epoll_create1(0);
	must(epfd == first, "another number");
	must(client(&address_of_a) >= 0 && epoll_wait(epfd, &event, 1, 600) == 0,
	     "an epoll reports what it does not watch");
	must(accept(a, NULL, NULL) >= 0, "A did not accept");
}

static void child_of_vfork(void)
{
	pid_t child = vfork();

	if (child == 0) {
		close(a);
		socket(AF_INET, SOCK_STREAM, 0);
		dup2(b, epfd);
		close(b);
		_exit(0);
	}
	in_child(child);
	both_serve(epfd, a, b);
}

static void child_of_clone(void)
{
	pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (child == 0) {
		swap_by_system_call();
		serve_b_by_the_number_of_a();
		_exit(0);
	}
	in_child(child);
	both_serve(epfd, a, b);
}

#if __GLIBC_PREREQ(2, 34)
static void child_of__Fork(void)
{
	pid_t child = _Fork();

	if (child == 0) {
		must(dup2(b, a) == a, "dup2");
		serve_b_by_the_number_of_a();
		_exit(0);
	}
	in_child(child);
	both_serve(epfd, a, b);
}
#endif

static void *own_table(void *unused)
{
	must(!unshare(CLONE_FILES), "unshare");
	close(a);
	must(dup2(b, a) == a, "dup2");
	serve_b_by_the_number_of_a();
	close(epfd);
	close(b);
	return unused;
}

static void thread_with_own_table(void)
{
	pthread_t thread;

	must(!pthread_create(&thread, NULL, own_table, NULL), "pthread_create");
	pthread_join(thread, NULL);
	both_serve(epfd, a, b);
}

static void all_closed_by_system_call(void)
{
	must(!syscall(SYS_close_range, 3, ~0U, 0), "close_range");
	a = listener(&address_of_a);
	b = listener(&address_of_b);
	epfd = epoll_create1(0);
	watch(epfd, a);
	both_serve(epfd, a, b);
}

static const struct {
	const char *name;
	void (*run)(void);
} ways[] = {
	{ "epoll closed by a system call", closed_by_system_call },
	{ "listener closed by a system call", listener_closed_by_system_call },
	{ "all closed by a system call", all_closed_by_system_call },
	{ "epoll number reused", epoll_number_reused },
	{ "vfork", child_of_vfork },
	{ "clone", child_of_clone },
#if __GLIBC_PREREQ(2, 34)
	{ "_Fork", child_of__Fork },
#endif
	{ "thread with its own table", thread_with_own_table },
};

int main(int argc, char *argv[])
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(argc > 2 ? atoi(argv[2]) : 0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	a = listener(&address_of_a);
	b = listener(&address_of_b);
	epfd = epoll_create1(0);
	watch(epfd, a);
	both_serve(epfd, a, b);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (!strcmp(ways[i].name, argv[1])) {
			ways[i].run();
			printf("\"ok\"\n");
			return 0;
		}
	printf("\"no such way\"\n");
	return 1;
}
