/* Calls that seldom occur, one for each run: what they answer has to be the same with the library and without it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
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

static int at_each_edge(void)
{
	watched(EPOLLIN | EPOLLOUT | EPOLLET);
	return wait_now(8) + 4 * wait_now(8);
}

static int added_to_no_epoll(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(-1, EPOLL_CTL_ADD, accepted(), &event);
}

static int added_without_an_event(void)
{
	return epoll_ctl(epfd, EPOLL_CTL_ADD, accepted(), NULL);
}

static int changed_before_it_is_added(void)
{
	return control(EPOLL_CTL_MOD, accepted(), EPOLLIN);
}

static int waits_for_no_epoll(void)
{
	struct epoll_event event;

	watched(EPOLLOUT);
	return epoll_wait(-1, &event, 1, 0) + 4 * wait_now(8);
}

/* One connection in each of two epolls that this thread waits for. */
static int watched_by_two(void)
{
	int other = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLOUT };
	int fd = accepted();

	epoll_wait(other, &event, 1, 0);
	watched(EPOLLOUT);
	event.events = EPOLLOUT;
	epoll_ctl(other, EPOLL_CTL_ADD, fd, &event);
	return other;
}

static int of_two_epolls_one_closed(void)
{
	close(watched_by_two());
	return wait_now(8);
}

static int of_two_epolls_one_duplicated(void)
{
	int other = dup(watched_by_two());
	struct epoll_event event;

	return wait_now(8) + 4 * epoll_wait(other, &event, 1, 0);
}

static int reported_by_a_closed_epoll(void)
{
	int fd = watched(EPOLLOUT);

	wait_now(8);
	close(epfd);
	epfd = epoll_create1(0);
	return control(EPOLL_CTL_ADD, fd, EPOLLOUT) + 4 * wait_now(8);
}

static int with_the_number_of_a_closed_one(void)
{
	struct sockaddr_in here;
	socklen_t size = sizeof(here);
	int closed = watched(EPOLLOUT), client = socket(AF_INET, SOCK_STREAM, 0), fd;

	getsockname(listener, (struct sockaddr *)&here, &size);
	connect(client, (struct sockaddr *)&here, size);
	close(closed);
	fd = accept(listener, NULL, NULL);
	control(EPOLL_CTL_ADD, fd, EPOLLOUT);
	return wait_now(8) + 4 * (fd == closed);
}

static int closed_by_a_system_call(void)
{
	syscall(SYS_close, watched(EPOLLOUT));
	watched(EPOLLOUT);
	return wait_now(8);
}

/* poll() refuses more descriptors than the limit allows. */
static int more_than_the_limit(void)
{
	struct rlimit limit;

	for (int i = 0; i < 10; i++)
		watched(EPOLLOUT);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 5;
	setrlimit(RLIMIT_NOFILE, &limit);
	return wait_now(16);
}

/* Its number is high, so that a test can tell its registration from others. */
static int added_with_a_high_number(void)
{
	struct sockaddr_in here;
	socklen_t size = sizeof(here);
	int client, fd, before;

	close(accepted());
	for (int i = 0; i < 100; i++)
		open("/dev/null", O_RDONLY);
	client = socket(AF_INET, SOCK_STREAM, 0);
	getsockname(listener, (struct sockaddr *)&here, &size);
	connect(client, (struct sockaddr *)&here, size);
	fd = accept(listener, NULL, NULL);
	control(EPOLL_CTL_ADD, fd, EPOLLIN);
	before = wait_now(8);
	return before + 2 * (int)write(client, "x", 1) + 4 * wait_now(8);
}

static void *change(void *fd)
{
	control(EPOLL_CTL_MOD, *(int *)fd, EPOLLIN);
	return NULL;
}

static int changed_by_another_thread(void)
{
	int fd = watched(EPOLLOUT);
	pthread_t thread;

	pthread_create(&thread, NULL, change, &fd);
	pthread_join(thread, NULL);
	return wait_now(8);
}

/* ---- calls that are refused, or that are about nothing that the library knows ---- */

#define AT_ONCE_TOO (&(struct timeval){ 0 })
static void *volatile nowhere = (void *)8;

static int socket_refused(void)
{
	return socket(-1, SOCK_STREAM, 0);
}
static int listens_with_mptcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);

	return fd < 0 ? -1 : listen(fd, 1);
}
static int connects_within_the_machine(void)
{
	struct sockaddr_un nowhere_to_go = { .sun_family = AF_UNIX, .sun_path = "/nonexistent" };

	return connect(dup(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&nowhere_to_go, sizeof(nowhere_to_go));
}
static int epoll_create_refused(void)
{
	return epoll_create(-1);
}
static int dup_refused(void)
{
	return dup(-1);
}
static int unshare_refused(void)
{
	return unshare(-1);
}
static int unshare_nothing(void)
{
	return unshare(0);
}
static int shutdown_refused(void)
{
	return shutdown(listening(), 9);
}
static int fcntl64_(void)
{
	int copy = fcntl64(listening(), F_DUPFD, 100);

	return (copy >= 100) + 2 * (accept(copy, NULL, NULL) >= 0);
}
static int option_of_tcp(void)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(listening(), IPPROTO_TCP, TCP_NODELAY, &value, &size) + value;
}
static int option_of_ip(void)
{
	int fd = listening() - 1, value = -1; /* the connection to it */
	socklen_t size = sizeof(value);

	return getsockopt(fd, IPPROTO_IP, IP_TOS, &value, &size) + value;
}
static int connects_with_its_own_cpu(void)
{
	struct sockaddr_in here;
	socklen_t size = sizeof(here);
	int fd = socket(AF_INET, SOCK_STREAM, 0), cpu = 0;

	getsockname(listening(), (struct sockaddr *)&here, &size);
	return setsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, sizeof(cpu)) +
	       2 * connect(fd, (struct sockaddr *)&here, size);
}
static int datagrams_with_their_own_cpu(void)
{
	int cpu = 0;

	return setsockopt(dup(socket(AF_INET, SOCK_DGRAM, 0)), SOL_SOCKET, SO_INCOMING_CPU, &cpu, sizeof(cpu));
}
static int seccomp_asked(void)
{
	unsigned int action = SECCOMP_RET_ALLOW;

	return (int)syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
}
static int seccomp_refused(void)
{
	return (int)syscall(SYS_seccomp, -1, 0, NULL);
}

static int cpus_of(pid_t pid)
{
	cpu_set_t cpus;

	return sched_getaffinity(pid, sizeof(cpus), &cpus) ? -1 : CPU_COUNT(&cpus);
}
static int cpus_of_this_thread(void)
{
	return cpus_of(gettid());
}
static int cpus_of_the_parent(void)
{
	return cpus_of(getppid());
}
static int cpus_into_too_little(void)
{
	cpu_set_t cpus;

	return pthread_getaffinity_np(pthread_self(), 1, &cpus);
}

static int end_of_idle[2];

static void *idle(void *unused)
{
	(void)!read(end_of_idle[0], &unused, 1);
	return NULL;
}

static pthread_t start_idle(void)
{
	pthread_t thread;

	if (pipe(end_of_idle) || pthread_create(&thread, NULL, idle, NULL))
		perror("idle");
	return thread;
}

static int cpus_of_another_thread(void)
{
	cpu_set_t cpus;

	return pthread_getaffinity_np(start_idle(), sizeof(cpus), &cpus) ? -1 : CPU_COUNT(&cpus);
}

static int beside_a_thread_with_another_table(void)
{
	int result;

	start_idle();
	result = in_thread_with_own_table();
	return result + 4 * dup(1) + 100 * listen(listening(), 5);
}

static int thread_refused(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	start_idle();
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, (size_t)1 << 46);
	return unshare(CLONE_FILES) + pthread_create(&thread, &attributes, idle, NULL);
}

static int poll_unreadable(void)
{
	return poll(nowhere, 1, 0);
}
static int poll_nothing(void)
{
	return poll(&(struct pollfd){ -1, POLLIN, 0 }, 1, 0);
}
static int select_nothing(void)
{
	fd_set in;

	FD_ZERO(&in);
	return select(0, &in, NULL, NULL, AT_ONCE_TOO);
}
static int select_long_sets(void)
{
	unsigned long in[64] = { 0 };

	return select(4096, (fd_set *)in, NULL, NULL, AT_ONCE_TOO);
}
static int select_unreadable(void)
{
	return select(listening() + 1, nowhere, NULL, NULL, AT_ONCE_TOO);
}
static int select_unreadable_except(void)
{
	int fd = listening();
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	return select(fd + 1, &in, NULL, nowhere, AT_ONCE_TOO);
}
static int pselect_nothing(void)
{
	return pselect(0, NULL, NULL, NULL, AT_ONCE, NULL);
}
static int pselect_unreadable_out(void)
{
	int fd = listening();
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	return pselect(fd + 1, &in, nowhere, NULL, AT_ONCE, NULL);
}
static int pselect_bad_time(void)
{
	int fd = listening();
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	return pselect(fd + 1, &in, NULL, NULL, &(struct timespec){ .tv_nsec = -1 }, NULL);
}
static int pwait2_unreadable_time(void)
{
	struct epoll_event event;

	return epoll_pwait2(watching(listening()), &event, 1, nowhere, NULL);
}

/* ---- messages without descriptors ---- */

static int many_without_control(void)
{
	char byte = 'x';
	struct iovec part = { &byte, 1 };
	struct mmsghdr message = { .msg_hdr = { .msg_iov = &part, .msg_iovlen = 1 } };
	int pair[2];

	return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) + sendmmsg(pair[0], &message, 1, 0) +
	       2 * recvmmsg(pair[1], &message, 1, 0, NULL);
}

static int with_credentials(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} control = { .header = { CMSG_LEN(sizeof(struct ucred)), SOL_SOCKET, SCM_CREDENTIALS } };
	struct ucred own = { getpid(), getuid(), getgid() };
	char byte = 'x';
	struct iovec part = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	int pair[2], on = 1;

	memcpy(CMSG_DATA(&control.header), &own, sizeof(own));
	return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) +
	       setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) + (int)sendmsg(pair[0], &message, 0) +
	       2 * (int)recvmsg(pair[1], &message, 0);
}

static int with_packet_information(void)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(here);
	char control[CMSG_SPACE(sizeof(struct in_pktinfo))], byte = 'x';
	struct iovec part = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;

	return bind(fd, (struct sockaddr *)&here, size) + getsockname(fd, (struct sockaddr *)&here, &size) +
	       setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) +
	       (int)sendto(fd, &byte, 1, 0, (struct sockaddr *)&here, size) + 2 * (int)recvmsg(fd, &message, 0);
}

/* ---- environments ---- */

static int execve_much_environment(void)
{
	char *many[1101];

	for (size_t i = 0; i < COUNT(many) - 1; i++)
		many[i] = "A=1";
	many[COUNT(many) - 1] = NULL;
	return execve(ECHO, arguments, many);
}

static int execve_own_settings(void)
{
	return execve("/bin/sh", (char *[]){ "sh", "-c", "echo $FSOCKET_FAST_EPOLL $FSOCKET", NULL },
	              (char *[]){ "FSOCKET_FAST_EPOLL=off", "FSOCKET=on", NULL });
}

static int execle_program_missing(void)
{
	return execle("/nonexistent", "echo", NULL, environment);
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
	{ "a connection at each edge", at_each_edge },
	{ "a connection added to no epoll", added_to_no_epoll },
	{ "a connection added without an event", added_without_an_event },
	{ "a connection changed before it is added", changed_before_it_is_added },
	{ "a connection while its thread waits for no epoll", waits_for_no_epoll },
	{ "connections of two epolls, one closed", of_two_epolls_one_closed },
	{ "connections of two epolls, one duplicated", of_two_epolls_one_duplicated },
	{ "a connection reported by a closed epoll", reported_by_a_closed_epoll },
	{ "a connection with the number of a closed one", with_the_number_of_a_closed_one },
	{ "a connection closed by a system call", closed_by_a_system_call },
	{ "more connections than the limit of descriptors", more_than_the_limit },
	{ "a connection added with a high number", added_with_a_high_number },
	{ "a connection changed by another thread", changed_by_another_thread },
	{ "socket refused", socket_refused },
	{ "listens with mptcp", listens_with_mptcp },
	{ "connects within the machine", connects_within_the_machine },
	{ "epoll create refused", epoll_create_refused },
	{ "dup refused", dup_refused },
	{ "unshare refused", unshare_refused },
	{ "unshare nothing", unshare_nothing },
	{ "shutdown refused", shutdown_refused },
	{ "fcntl64", fcntl64_ },
	{ "option of tcp", option_of_tcp },
	{ "option of ip", option_of_ip },
	{ "connects with its own cpu", connects_with_its_own_cpu },
	{ "datagrams with their own cpu", datagrams_with_their_own_cpu },
	{ "seccomp asked", seccomp_asked },
	{ "seccomp refused", seccomp_refused },
	{ "cpus of this thread", cpus_of_this_thread },
	{ "cpus of the parent", cpus_of_the_parent },
	{ "cpus into too little", cpus_into_too_little },
	{ "cpus of another thread", cpus_of_another_thread },
	{ "beside a thread with another table", beside_a_thread_with_another_table },
	{ "thread refused", thread_refused },
	{ "poll unreadable", poll_unreadable },
	{ "poll nothing", poll_nothing },
	{ "select nothing", select_nothing },
	{ "select long sets", select_long_sets },
	{ "select unreadable", select_unreadable },
	{ "select unreadable except", select_unreadable_except },
	{ "pselect nothing", pselect_nothing },
	{ "pselect unreadable out", pselect_unreadable_out },
	{ "pselect bad time", pselect_bad_time },
	{ "pwait2 unreadable time", pwait2_unreadable_time },
	{ "many without control", many_without_control },
	{ "with credentials", with_credentials },
	{ "with packet information", with_packet_information },
	{ "execve much environment", execve_much_environment },
	{ "execve own settings", execve_own_settings },
	{ "execle program missing", execle_program_missing },
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
