/* SPDX-License-Identifier: MIT */
/*
 * An open-loop load generator for short and for persistent connections.
 *
 * options.c    what the command line asks for
 * schedule.c   when each request is due, fixed before the first one is sent
 * histogram.c  latencies, with a relative error below a thousandth
 * loop.c       one thread: sends what is due, and notes what became of it
 * main.c       the threads, and the result as JSON
 *
 * A latency runs from the time at which the request was due, so a server that stalls is charged for every request that
 * waited (Tene, "How NOT to Measure Latency"). The model is Lancet (Kogias, Mallon and Bugnion, USENIX ATC 2019), which
 * also checks its own arrivals.
 */
#ifndef GENERATOR_H
#define GENERATOR_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_SECOND 1000000000ULL
#define MAX_THREADS 256
#define MAX_SOURCES 64
#define MAX_ENDS 256

enum arrivals { POISSON, CONSTANT };

/* Requests at a rate for some time. A trace is several of these, one after the other. */
struct piece {
	double seconds, rate;
};

struct options {
	struct sockaddr_in server;
	unsigned int ports; /* from the server's port on, used by turns */
	struct in_addr source[MAX_SOURCES];
	size_t sources;
	int cpu[MAX_THREADS];
	size_t threads;
	enum arrivals arrivals;
	struct piece *piece;
	size_t pieces;
	double seconds;  /* of all pieces */
	double warm_up;  /* seconds at the beginning that count for nothing */
	double patience; /* seconds after which an answer is late, and its connection is closed */
	uint64_t seed;
	int always; /* closed loop: this many connections per thread always have a request under way; 0: open loop */
	int persistent; /* each thread keeps this many connections open; 0: a connection for each request */
	size_t burst;   /* all threads together have this many requests due at the same moment; 0: each at its own */
	const char *request;
	size_t request_size;
	const char *begins, *ends; /* of the answer */
	size_t begins_size, ends_size;
};

/* Reads the command line. If something in it cannot be meant, exits with status 2 and one line that says what. */
void options_read(int count, char **arguments, struct options *ret_options);

/* ---- histogram.c ---------------------------------------------------------------------------------------------- */

#define SUB_BUCKETS 2048 /* a value is kept to one part in a thousand */
#define BUCKETS 27       /* up to 2^37 ns, which is 137 s */
#define HISTOGRAM_SIZE ((BUCKETS + 1) * SUB_BUCKETS / 2)

struct histogram {
	uint64_t count[HISTOGRAM_SIZE];
};

void histogram_add(struct histogram *histogram, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *other);
/* The smallest value that is counted at this place. */
uint64_t histogram_value(size_t place);

/* ---- schedule.c ----------------------------------------------------------------------------------------------- */

struct schedule {
	uint64_t *due; /* ns from the beginning, ascending */
	size_t length;
};

/* Makes the part of the schedule that falls to one of the threads. Exits if memory is missing. */
struct schedule schedule_make(const struct options *options, size_t thread);

/*
 * The check says whether requests were sent as the arrival process that was asked for. Each interval lasts RESOLUTION
 * or longer, on average.
 */
#define SAMPLE 2000
#define RESOLUTION (NS_PER_SECOND / 1000.0) /* ns */
struct check {
	size_t intervals; /* that were compared, SAMPLE at most */
	/*
	 * For a Poisson process, the distance of Kolmogorov and Smirnov: the largest difference between the
	 * distribution of the intervals and the one that was asked for. For a constant rate, the part of the intervals
	 * that was not even.
	 */
	double distance;
};
struct check schedule_check(const struct options *options, const uint64_t *sent, size_t length);

/* ---- loop.c --------------------------------------------------------------------------------------------------- */

/* How a request may fail. The names of these errors are in main.c. */
enum error { REFUSED, RESET, LATE, WRONG, NO_DESCRIPTOR, NO_PORT, OTHER_ERROR, ERRORS };

struct result {
	struct histogram connected, first_byte, whole; /* ns from when the request was due */
	struct histogram lateness;                     /* ns from when it was due until it was begun */
	uint64_t answered, errors[ERRORS];
	uint64_t warmed_up; /* answered in the warm-up, and counted nowhere else */
	uint64_t *sent;     /* for the open loop: when each request was begun, ns from the beginning */
	size_t length;
	double ended;   /* seconds from the beginning */
	bool real_time; /* the thread runs as soon as something is due */
};

struct worker {
	const struct options *options;
	size_t thread;
	struct schedule schedule;
	pthread_barrier_t *start;
	uint64_t began; /* CLOCK_MONOTONIC, ns */
	struct result result;
};

void *loop_run(void *worker);
uint64_t now_ns(void);

#endif
