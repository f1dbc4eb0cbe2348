/* Calls that seldom occur, one for each run: what they answer has to be the same with the library and without it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ECHO "/bin/echo"
#define AT_ONCE (&(struct timespec){ 0 })
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char *arguments[] = { "echo", "one", "two", NULL };
static char *environment[] = { "A=1", NULL };
static char **volatile unreadable = (char **)8;

static int listening(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(any);
	int client = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (bind(fd, (struct sockaddr *)&any, size) || listen(fd, 8) ||
	    getsockname(fd, (struct sockaddr *)&any, &size) || connect(client, (struct sockaddr *)&any, size))
		perror("listening");
	return fd;
}

static int watching(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	int epfd = epoll_create(1);

	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
	return epfd;
}

static int own_cpus(void)
{
	cpu_set_t cpus;

	return pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus) ? -1 : CPU_COUNT(&cpus);
}

static void *accept_one(void *listener)
{
	return (void *)(long)(accept(*(int *)listener, NULL, NULL) >= 0);
}

static int in_thread_with_own_table(void)
{
	int fd = listening();
	pthread_t thread;
	void *accepted = NULL;

	if (unshare(CLONE_FILES) || pthread_create(&thread, NULL, accept_one, &fd) || pthread_join(thread, &accepted))
		return -1;
	return accepted != NULL;
}

static int execl_(void)
{
	return execl(ECHO, "echo", "one", "two", NULL);
}
static int execlp_(void)
{
	return execlp("echo", "echo", "one", NULL);
}
static int execle_(void)
{
	return execle("/bin/sh", "sh", "-c", "echo $A", NULL, environment);
}
static int execv_(void)
{
	return execv(ECHO, arguments);
}
static int execvp_(void)
{
	return execvp("echo", arguments);
}
static int execvpe_(void)
{
	return execvpe("sh", (char *[]){ "sh", "-c", "echo $A", NULL }, environment);
}
static int fexecve_(void)
{
	return fexecve(open(ECHO, O_RDONLY | O_CLOEXEC), arguments, environment);
}
static int execveat_(void)
{
	return execveat(open("/bin", O_RDONLY | O_CLOEXEC), "echo", arguments, environment, 0);
}
static int execl_missing(void)
{
	return execl("/nonexistent", "echo", NULL);
}
static int execve_no_environment(void)
{
	return execve(ECHO, arguments, NULL);
}
static int execve_unreadable(void)
{
	return execve(ECHO, arguments, unreadable);
}
static int pwait2(void)
{
	struct epoll_event event;

	return epoll_pwait2(watching(listening()), &event, 1, AT_ONCE, NULL);
}
static int pwait2_bad_time(void)
{
	struct epoll_event event;

	return epoll_pwait2(watching(listening()), &event, 1, &(struct timespec){ .tv_nsec = -1 }, NULL);
}
static int pwait2_nothing(void)
{
	struct epoll_event event;

	return epoll_pwait2(epoll_create1(0), &event, 1, AT_ONCE, NULL);
}
static int pselect_(void)
{
	int fd = listening();
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	watching(fd);
	return pselect(fd + 1, &in, NULL, NULL, AT_ONCE, NULL);
}
static int select_time_left(void)
{
	int fd = listening();
	struct timeval second = { .tv_sec = 1 };
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	return select(fd + 1, &in, NULL, NULL, &second) + (second.tv_sec <= 1);
}
static int select_bad_time(void)
{
	int fd = listening();
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	return select(fd + 1, &in, NULL, NULL, &(struct timeval){ .tv_usec = -1 });
}
static int ppoll_(void)
{
	return ppoll(&(struct pollfd){ listening(), POLLIN, 0 }, 1, AT_ONCE, NULL);
}
static int ppoll_bad_time(void)
{
	return ppoll(&(struct pollfd){ listening(), POLLIN, 0 }, 1, &(struct timespec){ .tv_nsec = -1 }, NULL);
}
static int poll_too_many(void)
{
	return poll(NULL, 1 << 20, 0);
}
static int dup3_same(void)
{
	return dup3(listening(), 3, 0) < 0 && dup3(3, 3, 0);
}
static int close_range_refused(void)
{
	return close_range(3, 5, 1 << 10);
}

/* An epoll that this thread has waited for, as Fast-Epoll wants it, and connections just accepted. */
static int epfd, listener;

static int wait_now(int room)
{
	struct epoll_event events[128];

	return epoll_wait(epfd, events, room, 0);
}

static int control(int op, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(epfd, op, fd, &event);
}

static int accepted(void)
{
	struct sockaddr_in here;
	socklen_t size = sizeof(here);

	if (!epfd) {
		epfd = epoll_create1(0);
		listener = listening();
		wait_now(1);
	}
	getsockname(listener, (struct sockaddr *)&here, &size);
	if (connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&here, size))
		perror("connect");
	return accept(listener, NULL, NULL);
}

static int watched(uint32_t events)
{
	int fd = accepted();

	control(EPOLL_CTL_ADD, fd, events);
	return fd;
}

static int changed(void)
{
	control(EPOLL_CTL_MOD, watched(EPOLLIN), EPOLLOUT);
	return wait_now(8);
}

static int removed(void)
{
	int fd = watched(EPOLLOUT);

	control(EPOLL_CTL_DEL, fd, 0);
	return wait_now(8) + 2 * control(EPOLL_CTL_DEL, fd, 0);
}

static int changed_elsewhere(void)
{
	int fd = watched(EPOLLOUT);
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(epoll_create1(0), EPOLL_CTL_MOD, fd, &event) + 4 * wait_now(8);
}

static int added_twice(void)
{
	return control(EPOLL_CTL_ADD, watched(EPOLLOUT), EPOLLIN) + 4 * wait_now(8);
}

static int changed_to_one_shot(void)
{
	control(EPOLL_CTL_MOD, watched(EPOLLIN), EPOLLOUT | EPOLLONESHOT);
	return wait_now(8) + 2 * wait_now(8);
}

static int changed_to_nothing(void)
{
	return epoll_ctl(epfd, EPOLL_CTL_MOD, watched(EPOLLOUT), NULL) + 4 * wait_now(8);
}

static int reported_twice(void)
{
	watched(EPOLLOUT);
	return wait_now(8) + 2 * wait_now(8);
}

static int changed_after_a_report(void)
{
	int fd = watched(EPOLLOUT);

	wait_now(8);
	control(EPOLL_CTL_MOD, fd, EPOLLIN);
	return wait_now(8);
}

static int duplicated(void)
{
	dup(watched(EPOLLOUT));
	return wait_now(8);
}

static int of_a_closed_epoll(void)
{
	watched(EPOLLOUT);
	close(epfd);
	epfd = epoll_create1(0);
	return wait_now(8);
}

static int of_a_shared_epoll(void)
{
	watched(EPOLLOUT);
	dup(epfd);
	watched(EPOLLOUT);
	return wait_now(8);
}

static int closed_before_the_wait(void)
{
	close(watched(EPOLLOUT));
	watched(EPOLLOUT);
	return wait_now(8);
}

static int room_for_one(void)
{
	watched(EPOLLOUT);
	watched(EPOLLOUT);
	return wait_now(1) + 4 * wait_now(8);
}

static int more_than_fit(void)
{
	for (int i = 0; i < 70; i++)
		watched(EPOLLOUT);
	return wait_now(128);
}

static const struct {
	const char *name;
	int (*call)(void);
} variants[] = {
	{ "execl", execl_ },
	{ "execlp", execlp_ },
	{ "execle", execle_ },
	{ "execv", execv_ },
	{ "execvp", execvp_ },
	{ "execvpe", execvpe_ },
	{ "fexecve", fexecve_ },
	{ "execveat", execveat_ },
	{ "execl of a missing file", execl_missing },
	{ "execve without an environment", execve_no_environment },
	{ "execve with an unreadable environment", execve_unreadable },
	{ "epoll_pwait2", pwait2 },
	{ "epoll_pwait2 with a bad time", pwait2_bad_time },
	{ "epoll_pwait2 of an empty epoll", pwait2_nothing },
	{ "pselect", pselect_ },
	{ "select with time left", select_time_left },
	{ "select with a bad time", select_bad_time },
	{ "ppoll", ppoll_ },
	{ "ppoll with a bad time", ppoll_bad_time },
	{ "poll of too many", poll_too_many },
	{ "dup3 of the same", dup3_same },
	{ "close_range with an unknown flag", close_range_refused },
	{ "pthread_getaffinity_np", own_cpus },
	{ "a thread with its own descriptor table", in_thread_with_own_table },
	{ "a connection changed before the wait", changed },
	{ "a connection removed before the wait", removed },
	{ "a connection changed in an epoll that lacks it", changed_elsewhere },
	{ "a connection added twice", added_twice },
	{ "a connection changed to one shot", changed_to_one_shot },
	{ "a connection changed to nothing", changed_to_nothing },
	{ "a connection reported twice", reported_twice },
	{ "a connection changed after a report", changed_after_a_report },
	{ "a connection duplicated before the wait", duplicated },
	{ "a connection of a closed epoll", of_a_closed_epoll },
	{ "a connection of a duplicated epoll", of_a_shared_epoll },
	{ "a connection closed before the wait", closed_before_the_wait },
	{ "room for one of two connections", room_for_one },
	{ "more connections than the library puts off", more_than_fit },
};

int main(int argc, char *argv[])
{
	for (size_t i = 0; i < COUNT(variants); i++) {
		if (argc == 1)
			puts(variants[i].name);
		else if (strcmp(argv[1], variants[i].name) == 0) {
			int result;

			listening();
			errno = 0;
			result = variants[i].call();
			printf("%d %s\n", result, strerror(errno));
		}
	}
	return 0;
}
