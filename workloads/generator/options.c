/* SPDX-License-Identifier: MIT */
/*
 * Reads what the command line asks for. If something is not understood, the program ends with one line that says what,
 * and how to give it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generator.h"

static const char usage[] =
	"usage: generator --server ADDRESS:PORT --request TEXT --ends TEXT --cpus LIST\n"
	"                 (--rate PER_SECOND --seconds S | --trace FILE | --always N --seconds S) [OPTIONS]\n"
	"\n"
	"Sends requests when they are due, whatever the answers do, and prints what became of them as JSON.\n"
	"\n"
	"  --server ADDRESS:PORT[+N]  N more ports than the first, by turns\n"
	"  --request TEXT       what is sent; \\r, \\n and \\\\ stand for what they do in C\n"
	"  --begins TEXT        how each answer begins\n"
	"  --ends TEXT          how each answer ends\n"
	"  --cpus LIST          a thread on each of these CPUs, such as 0,1\n"
	"  --rate PER_SECOND    of requests, by all threads\n"
	"  --seconds S          how long\n"
	"  --trace FILE         lines of SECONDS PER_SECOND, one after the other\n"
	"  --constant           requests at even intervals; without it they come as a Poisson process\n"
	"  --burst N            N requests at the same moment, each time; the rate stays that of requests\n"
	"  --always N           a closed loop: N requests under way in each thread, always\n"
	"  --persistent N       N connections stay open in each thread; without it each request has one of its own\n"
	"  --sources LIST       local addresses, by turns\n"
	"  --warm-up S          of the time, at its beginning, in which nothing is counted\n"
	"  --patience S         after which an answer is late (5)\n"
	"  --seed N             of the arrivals (1)\n";

__attribute__((format(printf, 1, 2), noreturn)) static void refuse(const char *format, ...)
{
	va_list arguments;

	fputs("generator: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(2);
}

static double number(const char *name, const char *text, double least, double most)
{
	char *rest;
	double value = strtod(text, &rest);

	if (rest == text || *rest || !(value >= least && value <= most))
		refuse("--%s %s: give a number from %g to %g", name, text, least, most);
	return value;
}

static void read_server(struct options *options, char *text)
{
	char *colon = strrchr(text, ':'), *plus = colon ? strchr(colon, '+') : NULL;

	if (!colon)
		refuse("--server %s: give ADDRESS:PORT", text);
	*colon = '\0';
	if (plus)
		*plus = '\0';
	options->server.sin_family = AF_INET;
	options->server.sin_port = htons((uint16_t)number("server", colon + 1, 1, 65535));
	options->ports = plus ? 1 + (unsigned int)number("server", plus + 1, 0, 1000) : 1;
	if (inet_pton(AF_INET, text, &options->server.sin_addr) != 1)
		refuse("--server %s: give an IPv4 address", text);
}

static void read_cpus(struct options *options, char *text)
{
	for (char *cpu = strtok(text, ","); cpu; cpu = strtok(NULL, ",")) {
		if (options->threads == MAX_THREADS)
			refuse("--cpus: more than %d", MAX_THREADS);
		options->cpu[options->threads++] = (int)number("cpus", cpu, 0, 1023);
	}
}

static void read_sources(struct options *options, char *text)
{
	for (char *source = strtok(text, ","); source; source = strtok(NULL, ",")) {
		if (options->sources == MAX_SOURCES)
			refuse("--sources: more than %d", MAX_SOURCES);
		if (inet_pton(AF_INET, source, &options->source[options->sources++]) != 1)
			refuse("--sources %s: give IPv4 addresses", source);
	}
}

/* Replaces the escapes in place. Returns the size, because the text may hold a zero. */
static size_t unescaped(char *text)
{
	static const char escapes[] = "rn0\\", meant[] = "\r\n\0\\";
	char *to = text;

	for (const char *from = text; *from; from++) {
		const char *escape = *from == '\\' && from[1] ? strchr(escapes, from[1]) : NULL;

		*to++ = escape ? meant[escape - escapes] : *from;
		from += escape != NULL;
	}
	return (size_t)(to - text);
}

static void add_piece(struct options *options, double seconds, double rate)
{
	options->piece = realloc(options->piece, (options->pieces + 1) * sizeof(*options->piece));
	if (!options->piece)
		refuse("no memory");
	options->piece[options->pieces++] = (struct piece){ seconds, rate };
	options->seconds += seconds;
}

static void read_trace(struct options *options, const char *path)
{
	FILE *file = fopen(path, "r");
	double seconds, rate;
	int read, line = 1;

	if (!file)
		refuse("--trace %s: %m", path);
	for (; (read = fscanf(file, "%lf %lf", &seconds, &rate)) == 2; line++) {
		if (!(seconds > 0 && seconds <= 86400 && rate >= 0 && rate <= 1e7))
			break;
		add_piece(options, seconds, rate);
	}
	if (read != EOF || !options->pieces)
		refuse("--trace %s:%d: each line has SECONDS and PER_SECOND", path, line);
	fclose(file);
}

static void check(struct options *options, double rate, double seconds)
{
	if (!options->server.sin_port || !options->request_size || !options->threads)
		refuse("say --server, --request and --cpus: --help explains them");
	if ((rate > 0) + (options->pieces > 0) + (options->always > 0) != 1)
		refuse("say one of --rate, --trace and --always");
	if (!options->pieces && seconds <= 0)
		refuse("say --seconds");
	if (options->begins_size > MAX_ENDS || options->ends_size > MAX_ENDS)
		refuse("--begins and --ends are for %d bytes each", MAX_ENDS);
	if (options->persistent && !options->ends_size)
		refuse("--persistent: say how an answer --ends");
	if (options->burst && (options->always || options->arrivals == CONSTANT))
		refuse("--burst: not with --always or --constant");
	if (options->always && options->persistent && options->always != options->persistent)
		refuse("--always and --persistent: give the same number");
	if (!options->pieces)
		add_piece(options, seconds, rate);
	if (options->warm_up >= options->seconds)
		refuse("--warm-up is as long as all of it");
}

void options_read(int count, char **arguments, struct options *ret_options)
{
	static const struct option known[] = {
		{ "server", required_argument, NULL, 's' },   { "request", required_argument, NULL, 'r' },
		{ "begins", required_argument, NULL, 'b' },   { "ends", required_argument, NULL, 'e' },
		{ "cpus", required_argument, NULL, 'c' },     { "rate", required_argument, NULL, 'R' },
		{ "seconds", required_argument, NULL, 'S' },  { "trace", required_argument, NULL, 't' },
		{ "constant", no_argument, NULL, 'C' },       { "burst", required_argument, NULL, 'B' },
		{ "always", required_argument, NULL, 'a' },   { "persistent", required_argument, NULL, 'p' },
		{ "sources", required_argument, NULL, 'o' },  { "warm-up", required_argument, NULL, 'w' },
		{ "patience", required_argument, NULL, 'P' }, { "seed", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },           { 0 },
	};
	struct options options = { .patience = 5, .seed = 1, .begins = "", .ends = "" };
	double rate = 0, seconds = 0;
	int found;

	while ((found = getopt_long(count, arguments, "", known, NULL)) != -1) {
		switch (found) {
		case 's':
			read_server(&options, optarg);
			break;
		case 'r':
			options.request = optarg;
			options.request_size = unescaped(optarg);
			break;
		case 'b':
			options.begins = optarg;
			options.begins_size = unescaped(optarg);
			break;
		case 'e':
			options.ends = optarg;
			options.ends_size = unescaped(optarg);
			break;
		case 'c':
			read_cpus(&options, optarg);
			break;
		case 'R':
			rate = number("rate", optarg, 1, 1e7);
			break;
		case 'S':
			seconds = number("seconds", optarg, 0.01, 86400);
			break;
		case 't':
			read_trace(&options, optarg);
			break;
		case 'C':
			options.arrivals = CONSTANT;
			break;
		case 'B':
			options.burst = (size_t)number("burst", optarg, 1, 100000);
			break;
		case 'a':
			options.always = (int)number("always", optarg, 1, 100000);
			break;
		case 'p':
			options.persistent = (int)number("persistent", optarg, 1, 100000);
			break;
		case 'o':
			read_sources(&options, optarg);
			break;
		case 'w':
			options.warm_up = number("warm-up", optarg, 0, 86400);
			break;
		case 'P':
			options.patience = number("patience", optarg, 0.001, 3600);
			break;
		case 'd':
			options.seed = (uint64_t)number("seed", optarg, 0, 9e15);
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default: /* getopt_long() has said what */
			exit(2);
		}
	}
	if (optind < count)
		refuse("%s: --help says what can be said", arguments[optind]);
	check(&options, rate, seconds);
	*ret_options = options;
}
