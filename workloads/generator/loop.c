/* SPDX-License-Identifier: MIT */
/* One thread: it begins what is due, reads what comes back, and notes when. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "generator.h"

#define EVENTS 64
#define READ_BYTES 65536

struct connection {
	struct connection *next, *previous; /* among those under way, in the order in which they were begun */
	int fd;                             /* -1: it is not open */
	bool connected, underway;
	uint64_t due, begun, idle_since;
	size_t received;
	char begins[MAX_ENDS], ends[MAX_ENDS]; /* of what was received */
	size_t ends_size;
};

struct loop {
	struct worker *worker;
	const struct options *options;
	struct result *result;
	int epoll;
	struct connection underway;          /* a ring; the oldest is next */
	struct connection *idle, *last_idle; /* a queue, by next */
	size_t n_underway, next_due, opened;
	uint64_t end;
};

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

__attribute__((noreturn)) static void give_up(const char *reason)
{
	fprintf(stderr, "generator: %s\n", reason);
	exit(3);
}

/* ---- what became of a request ---------------------------------------------------------------------------------- */

static bool counts(const struct loop *loop, const struct connection *connection)
{
	return connection->due - loop->worker->began >= (uint64_t)(loop->options->warm_up * (double)NS_PER_SECOND);
}

static void note(struct loop *loop, const struct connection *connection, struct histogram *histogram, uint64_t from)
{
	uint64_t now = now_ns();

	if (counts(loop, connection))
		histogram_add(histogram, now > from ? now - from : 0);
}

static void is_underway(struct loop *loop, struct connection *connection)
{
	connection->previous = loop->underway.previous;
	connection->next = &loop->underway;
	connection->previous->next = connection->next->previous = connection;
	connection->underway = true;
	loop->n_underway++;
}

/* Puts a connection behind the other idle ones, so that all are used by turns. */
static void waits(struct loop *loop, struct connection *connection)
{
	connection->underway = false;
	connection->idle_since = now_ns();
	connection->next = NULL;
	if (loop->idle)
		loop->last_idle->next = connection;
	else
		loop->idle = connection;
	loop->last_idle = connection;
}

static void is_idle(struct loop *loop, struct connection *connection)
{
	connection->previous->next = connection->next;
	connection->next->previous = connection->previous;
	loop->n_underway--;
	waits(loop, connection);
}

static void close_connection(struct connection *connection)
{
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
	connection->connected = false;
}

static void answered(struct loop *loop, struct connection *connection)
{
	note(loop, connection, &loop->result->whole, connection->due);
	if (counts(loop, connection))
		loop->result->answered++;
	else
		loop->result->warmed_up++;
	if (!loop->options->persistent)
		close_connection(connection);
	is_idle(loop, connection);
}

static void failed(struct loop *loop, struct connection *connection, enum error error)
{
	loop->result->errors[error] += counts(loop, connection);
	close_connection(connection);
	is_idle(loop, connection);
}

static enum error error_of(int number)
{
	switch (number) {
	case ECONNREFUSED:
		return REFUSED;
	case ECONNRESET:
	case EPIPE:
		return RESET;
	case EMFILE:
	case ENFILE:
		return NO_DESCRIPTOR;
	case EADDRNOTAVAIL:
		return NO_PORT;
	case ETIMEDOUT:
		return LATE;
	default:
		return OTHER_ERROR;
	}
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

/* Keeps how the answer begins and how it ends. */
static void keep(struct connection *connection, const char *data, size_t size)
{
	size_t room = sizeof(connection->ends), kept = connection->ends_size;

	if (connection->received < sizeof(connection->begins)) {
		size_t begins = sizeof(connection->begins) - connection->received;

		memcpy(connection->begins + connection->received, data, size < begins ? size : begins);
	}
	connection->received += size;
	if (size > room) {
		data += size - room;
		size = room;
	}
	if (kept + size > room) {
		memmove(connection->ends, connection->ends + kept + size - room, room - size);
		kept = room - size;
	}
	memcpy(connection->ends + kept, data, size);
	connection->ends_size = kept + size;
}

static bool begins_right(const struct options *options, const struct connection *connection)
{
	size_t size = connection->received < options->begins_size ? connection->received : options->begins_size;

	return memcmp(connection->begins, options->begins, size) == 0;
}

static bool is_whole(const struct options *options, const struct connection *connection)
{
	return connection->received >= options->begins_size && connection->ends_size >= options->ends_size &&
	       memcmp(connection->ends + connection->ends_size - options->ends_size, options->ends,
	              options->ends_size) == 0;
}

static void has_ended(struct loop *loop, struct connection *connection)
{
	const struct options *options = loop->options;

	if (!connection->received)
		failed(loop, connection, RESET);
	else if (options->persistent || !begins_right(options, connection) || !is_whole(options, connection))
		failed(loop, connection, WRONG);
	else
		answered(loop, connection);
}

/* A short connection's answer is whole when the server closes; a persistent one's when it ends as it should. */
static void receive(struct loop *loop, struct connection *connection, bool closes)
{
	static __thread char data[READ_BYTES];
	ssize_t size;

	do {
		size = recv(connection->fd, data, sizeof(data), 0);
		if (size < 0 && errno == EAGAIN)
			return;
		if (size < 0)
			return failed(loop, connection, error_of(errno));
		if (size == 0)
			return has_ended(loop, connection);
		if (!connection->received)
			note(loop, connection, &loop->result->first_byte, connection->due);
		keep(connection, data, (size_t)size);
		if (loop->options->persistent && !begins_right(loop->options, connection))
			return failed(loop, connection, WRONG);
		if (loop->options->persistent && is_whole(loop->options, connection))
			return answered(loop, connection);
	} while (closes || (size_t)size == sizeof(data));
}

/* ---- the request ----------------------------------------------------------------------------------------------- */

static void send_request(struct loop *loop, struct connection *connection)
{
	ssize_t sent = send(connection->fd, loop->options->request, loop->options->request_size, MSG_NOSIGNAL);

	if (sent != (ssize_t)loop->options->request_size)
		failed(loop, connection, sent < 0 ? error_of(errno) : OTHER_ERROR);
}

static void has_connected(struct loop *loop, struct connection *connection)
{
	connection->connected = true;
	note(loop, connection, &loop->result->connected, connection->due);
	send_request(loop, connection);
}

/* Opens a socket. Ports and source addresses are used by turns, and no thread has a port of its own. */
static int open_socket(struct loop *loop, struct sockaddr_in *ret_server)
{
	const struct options *options = loop->options;
	size_t turn = loop->opened++ + loop->worker->thread;
	struct sockaddr_in source = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;

	*ret_server = options->server;
	ret_server->sin_port = htons((uint16_t)(ntohs(options->server.sin_port) + turn % options->ports));
	if (fd < 0 || !options->sources)
		return fd;
	source.sin_addr = options->source[turn / options->ports % options->sources];
	if (!setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof(yes)) &&
	    !bind(fd, (struct sockaddr *)&source, sizeof(source)))
		return fd;
	close(fd);
	return -1;
}

static void open_connection(struct loop *loop, struct connection *connection)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection };
	struct sockaddr_in server;
	int status;

	connection->fd = open_socket(loop, &server);
	if (connection->fd < 0)
		return failed(loop, connection, error_of(errno));
	status = connect(connection->fd, (struct sockaddr *)&server, sizeof(server));
	if (status && errno != EINPROGRESS)
		return failed(loop, connection, error_of(errno));
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, connection->fd, &event))
		return failed(loop, connection, error_of(errno));
	if (!status && connection->due)
		has_connected(loop, connection);
}

static struct connection *new_connection(void)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		give_up("no memory for another connection");
	connection->fd = -1;
	return connection;
}

static struct connection *idle_connection(struct loop *loop)
{
	struct connection *connection = loop->idle;

	if (!connection)
		return new_connection();
	loop->idle = connection->next;
	return connection;
}

/* Opens the connections that stay open, before the first request is due. */
static void open_persistent(struct loop *loop)
{
	struct connection *connection;

	for (int i = 0; i < loop->options->persistent; i++) {
		struct pollfd writable = { .events = POLLOUT };

		connection = new_connection();
		is_underway(loop, connection);
		open_connection(loop, connection);
		writable.fd = connection->fd;
		if (poll(&writable, 1, (int)(loop->options->patience * 1000)) != 1 || writable.revents != POLLOUT)
			give_up("the server does not take connections");
		connection->connected = true;
		is_idle(loop, connection);
	}
}

static void begin(struct loop *loop, uint64_t due)
{
	struct connection *connection = idle_connection(loop);
	uint64_t possible = due > connection->idle_since ? due : connection->idle_since;

	connection->due = due;
	connection->begun = now_ns();
	connection->received = connection->ends_size = 0;
	is_underway(loop, connection);
	note(loop, connection, &loop->result->lateness, loop->options->persistent ? possible : due);
	if (connection->fd < 0)
		open_connection(loop, connection);
	else
		send_request(loop, connection);
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

static bool has_room(const struct loop *loop)
{
	size_t most = (size_t)(loop->options->always ? loop->options->always : loop->options->persistent);

	return !most || loop->n_underway < most;
}

static void begin_what_is_due(struct loop *loop)
{
	const struct schedule *schedule = &loop->worker->schedule;
	uint64_t began = loop->worker->began, now = now_ns();

	for (; loop->next_due < schedule->length && has_room(loop); loop->next_due++) {
		if (now < began + schedule->due[loop->next_due] &&
		    (now = now_ns()) < began + schedule->due[loop->next_due])
			return;
		loop->result->sent[loop->next_due] = now_ns() - began;
		begin(loop, began + schedule->due[loop->next_due]);
	}
}

/*
 * For the closed loop: each connection that is answered begins again. This goes in rounds, so that a connection that
 * fails at once cannot hold the loop.
 */
static void begin_as_many_as_always(struct loop *loop)
{
	for (int i = 0; i < loop->options->always && has_room(loop) && now_ns() < loop->end; i++)
		begin(loop, now_ns());
}

static uint64_t patience(const struct loop *loop)
{
	return (uint64_t)(loop->options->patience * (double)NS_PER_SECOND);
}

static void end_what_is_late(struct loop *loop)
{
	uint64_t now = now_ns();

	while (loop->n_underway && now - loop->underway.next->begun > patience(loop))
		failed(loop, loop->underway.next, LATE);
}

static void handle(struct loop *loop, const struct epoll_event *event)
{
	struct connection *connection = event->data.ptr;
	int error = 0;
	socklen_t size = sizeof(error);

	if (connection->fd < 0)
		return;
	if (!connection->underway) {
		if (event->events & ~(uint32_t)EPOLLOUT) /* the server has closed a connection that nothing waits for */
			close_connection(connection);
		return;
	}
	if (event->events & EPOLLERR) {
		getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
		return failed(loop, connection, error_of(error));
	}
	if (!connection->connected && event->events & EPOLLOUT)
		has_connected(loop, connection);
	if (connection->fd >= 0 && event->events & EPOLLIN)
		receive(loop, connection, event->events & (EPOLLRDHUP | EPOLLHUP));
}

static bool is_over(const struct loop *loop)
{
	bool all_begun =
		loop->options->always ? now_ns() >= loop->end : loop->next_due == loop->worker->schedule.length;

	return all_begun && !loop->n_underway;
}

static struct timespec until_next(const struct loop *loop)
{
	const struct schedule *schedule = &loop->worker->schedule;
	uint64_t now = now_ns(), next = loop->options->always ? loop->end : UINT64_MAX;

	if (loop->n_underway && loop->underway.next->begun + patience(loop) < next)
		next = loop->underway.next->begun + patience(loop);
	if (loop->next_due < schedule->length && has_room(loop) &&
	    loop->worker->began + schedule->due[loop->next_due] < next)
		next = loop->worker->began + schedule->due[loop->next_due];
	next = next > now ? next - now : 0;
	return (struct timespec){ .tv_sec = (time_t)(next / NS_PER_SECOND), .tv_nsec = (long)(next % NS_PER_SECOND) };
}

static void turn(struct loop *loop)
{
	struct epoll_event events[EVENTS];
	struct timespec timeout;
	int n;

	if (loop->options->always)
		begin_as_many_as_always(loop);
	else
		begin_what_is_due(loop);
	timeout = until_next(loop);
	n = epoll_pwait2(loop->epoll, events, EVENTS, &timeout, NULL);
	for (int i = 0; i < n; i++)
		handle(loop, &events[i]);
	end_what_is_late(loop);
}

static void run_here(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (pthread_setaffinity_np(pthread_self(), sizeof(one), &one))
		give_up("a thread may not run on its CPU");
}

/*
 * Makes the thread run as soon as something is due, as clients on other machines do: they would not wait for a CPU of
 * the server's. In an open loop a thread sleeps most of the time, so the server is not starved. False: it is not
 * allowed.
 */
static bool runs_when_due(void)
{
	struct sched_param lowest = { .sched_priority = 1 };

	prctl(PR_SET_TIMERSLACK, 1); /* ns; the default is 50 us */
	return sched_setscheduler(0, SCHED_FIFO, &lowest) == 0;
}

/* A thread's function, as pthread_create(3) wants it. */
void *loop_run(void *argument)
{
	struct worker *worker = argument;
	const struct options *options = worker->options;
	struct loop loop = { .worker = worker, .options = options, .result = &worker->result };

	run_here(options->cpu[worker->thread]);
	worker->result.real_time = !options->always && runs_when_due();
	loop.underway.next = loop.underway.previous = &loop.underway;
	loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	worker->result.length = worker->schedule.length;
	worker->result.sent = calloc(worker->schedule.length + 1, sizeof(*worker->result.sent));
	if (loop.epoll < 0 || !worker->result.sent)
		give_up(strerror(errno));
	open_persistent(&loop);
	pthread_barrier_wait(worker->start); /* all threads are there; main() fixes when they begin */
	pthread_barrier_wait(worker->start);
	loop.end = worker->began + (uint64_t)(options->seconds * (double)NS_PER_SECOND);
	while (!is_over(&loop))
		turn(&loop);
	worker->result.ended = (double)(now_ns() - worker->began) / (double)NS_PER_SECOND;
	return NULL;
}
