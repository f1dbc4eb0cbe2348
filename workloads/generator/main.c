/* SPDX-License-Identifier: MIT */
/* Runs the threads, and prints what they found as one line of JSON. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "generator.h"

static const char *const error_names[ERRORS] = { "refused",       "reset",   "late", "wrong",
                                                 "no_descriptor", "no_port", "other" };

/* Lets the process have as many descriptors as the hard limit allows (setrlimit(2)). */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static double cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* When the requests of all threads were begun, in order. */
static uint64_t *all_sent(const struct worker *workers, size_t threads, size_t *ret_length)
{
	size_t length = 0, n = 0;
	uint64_t *sent;

	for (size_t i = 0; i < threads; i++)
		length += workers[i].result.length;
	sent = calloc(length + 1, sizeof(*sent));
	for (size_t i = 0; sent && i < threads; i++) {
		memcpy(sent + n, workers[i].result.sent, workers[i].result.length * sizeof(*sent));
		n += workers[i].result.length;
	}
	if (sent)
		qsort(sent, length, sizeof(*sent), by_size);
	*ret_length = sent ? length : 0;
	return sent;
}

static void merge(struct result *into, const struct result *other)
{
	histogram_merge(&into->connected, &other->connected);
	histogram_merge(&into->first_byte, &other->first_byte);
	histogram_merge(&into->whole, &other->whole);
	histogram_merge(&into->lateness, &other->lateness);
	into->answered += other->answered;
	into->warmed_up += other->warmed_up;
	for (size_t i = 0; i < ERRORS; i++)
		into->errors[i] += other->errors[i];
	if (other->ended > into->ended)
		into->ended = other->ended;
	into->real_time = into->real_time && other->real_time;
}

/* Prints pairs of a value in ns and how often it came. */
static void print_histogram(const char *name, const struct histogram *histogram)
{
	const char *separator = "";

	printf(",\"%s\":[", name);
	for (size_t i = 0; i < HISTOGRAM_SIZE; i++)
		if (histogram->count[i]) {
			printf("%s[%" PRIu64 ",%" PRIu64 "]", separator, histogram_value(i), histogram->count[i]);
			separator = ",";
		}
	printf("]");
}

static void print_result(const struct options *options, const struct result *result, const struct check *check)
{
	double seconds = result->ended < options->seconds ? result->ended : options->seconds;

	printf("{\"requests\":%" PRIu64 ",\"warmed_up\":%" PRIu64
	       ",\"seconds\":%.6f,\"cpu_seconds\":%.6f,\"intervals\":%zu,\"distance\":%.6f,\"real_time\":%s",
	       result->answered, result->warmed_up, seconds - options->warm_up, cpu_seconds(), check->intervals,
	       check->distance, result->real_time ? "true" : "false");
	for (size_t i = 0; i < ERRORS; i++)
		printf("%s\"%s\":%" PRIu64, i ? "," : ",\"errors\":{", error_names[i], result->errors[i]);
	printf("}");
	print_histogram("connect_ns", &result->connected);
	print_histogram("first_byte_ns", &result->first_byte);
	print_histogram("whole_ns", &result->whole);
	print_histogram("lateness_ns", &result->lateness);
	printf("}\n");
}

static void complain(const struct result *result)
{
	struct rlimit limit = { 0 };

	getrlimit(RLIMIT_NOFILE, &limit);
	if (result->errors[NO_DESCRIPTOR])
		fprintf(stderr,
		        "generator: %" PRIu64 " requests found no descriptor: raise the limit of %ju (ulimit -Hn)\n",
		        result->errors[NO_DESCRIPTOR], (uintmax_t)limit.rlim_cur);
	if (result->errors[NO_PORT])
		fprintf(stderr, "generator: %" PRIu64 " requests found no local port: give more source addresses\n",
		        result->errors[NO_PORT]);
}

/* All threads begin at the same time, once each is ready. */
static void run_all(const struct options *options, struct worker *workers)
{
	pthread_t thread[MAX_THREADS];
	pthread_barrier_t start;
	uint64_t began;

	pthread_barrier_init(&start, NULL, (unsigned int)options->threads + 1);
	for (size_t i = 0; i < options->threads; i++) {
		workers[i] = (struct worker){ .options = options, .thread = i, .start = &start };
		if (!options->always)
			workers[i].schedule = schedule_make(options, i);
		if (pthread_create(&thread[i], NULL, loop_run, &workers[i])) {
			fprintf(stderr, "generator: it cannot make %zu threads\n", options->threads);
			exit(3);
		}
	}
	pthread_barrier_wait(&start);
	began = now_ns();
	for (size_t i = 0; i < options->threads; i++)
		workers[i].began = began;
	pthread_barrier_wait(&start);
	for (size_t i = 0; i < options->threads; i++)
		pthread_join(thread[i], NULL);
}

int main(int count, char **arguments)
{
	static struct worker workers[MAX_THREADS];
	static struct result total = { .real_time = true };
	struct check check = { 0 };
	struct options options;
	uint64_t *sent;
	size_t length;

	options_read(count, arguments, &options);
	raise_limit();
	run_all(&options, workers);
	for (size_t i = 0; i < options.threads; i++)
		merge(&total, &workers[i].result);
	sent = all_sent(workers, options.threads, &length);
	if (!options.always)
		check = schedule_check(&options, sent, length);
	print_result(&options, &total, &check);
	complain(&total);
	free(sent);
	return 0;
}
