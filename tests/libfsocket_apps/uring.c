// SPDX-License-Identifier: MIT
/*
 * A server that accepts with io_uring: says its port, answers as many connections as it is told, each with "ok", ends.
 * The ring is used without liburing, one request at a time.
 */
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
	int fd;
	struct io_uring_params params;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
};

static void fail(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static void *map(const struct ring *ring, size_t size, off_t what)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, what);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static void open_ring(struct ring *ring)
{
	const struct io_uring_params *p = &ring->params;

	ring->fd = (int)syscall(SYS_io_uring_setup, 4, &ring->params);
	if (ring->fd < 0)
		fail("io_uring_setup");
	ring->sq = map(ring, p->sq_off.array + p->sq_entries * sizeof(__u32), IORING_OFF_SQ_RING);
	ring->cq = map(ring, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	ring->sqes = map(ring, p->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

static _Atomic __u32 *at(char *ring, __u32 offset)
{
	return (_Atomic __u32 *)(ring + offset);
}

static int accept_by(struct ring *ring, int listener)
{
	const struct io_uring_params *p = &ring->params;
	__u32 tail = atomic_load(at(ring->sq, p->sq_off.tail)), head = atomic_load(at(ring->cq, p->cq_off.head));
	__u32 slot = tail & *at(ring->sq, p->sq_off.ring_mask);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(ring->cq + p->cq_off.cqes);
	int result;

	memset(&ring->sqes[slot], 0, sizeof(ring->sqes[slot]));
	ring->sqes[slot].opcode = IORING_OP_ACCEPT;
	ring->sqes[slot].fd = listener;
	*at(ring->sq, p->sq_off.array + slot * sizeof(__u32)) = slot;
	atomic_store(at(ring->sq, p->sq_off.tail), tail + 1);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		fail("io_uring_enter");
	result = cqes[head & *at(ring->cq, p->cq_off.ring_mask)].res;
	atomic_store(at(ring->cq, p->cq_off.head), head + 1);
	return result;
}

int main(int argc, char *argv[])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), left = argc > 1 ? atoi(argv[1]) : 0;
	socklen_t size = sizeof(address);
	struct ring ring = { 0 };

	if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 512) ||
	    getsockname(listener, (struct sockaddr *)&address, &size))
		fail("listen");
	open_ring(&ring);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	while (left-- > 0) {
		int connection = accept_by(&ring, listener);
		char byte; /* to close with something unread would reset it */

		if (connection < 0 || read(connection, &byte, 1) != 1 || write(connection, "ok", 2) != 2)
			fail("accept");
		close(connection);
	}
	return EXIT_SUCCESS;
}
