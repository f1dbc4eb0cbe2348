// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>

#include "common.h"
#include "options.h"
#include "real.h"
#include "sockopt.h"

#define OPTIONS_END 128 /* more than the highest number at any of these levels, with room for future options */
#define VALUE_BYTES 256

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static const int levels[] = { SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP };

struct value {
	socklen_t size;
	bool unreadable;
	unsigned char bytes[VALUE_BYTES];
};

/*
 * Is this option compared? Left out are options that say nothing about equality: the library's own marks, numbers that
 * each socket has for itself, counters, and options that reading changes (SO_ERROR is cleared by it, SO_PEERPIDFD opens
 * a descriptor). SO_GET_FILTER counts in instructions: has_filter() asks for it.
 */
static bool is_compared(int level, int name)
{
	switch (level) {
	case SOL_SOCKET:
		return name != SO_REUSEPORT && name != SO_INCOMING_CPU && name != SO_COOKIE && name != SO_ERROR &&
		       name != SO_ACCEPTCONN && name != SO_INCOMING_NAPI_ID && name != SO_MEMINFO &&
		       name != SO_GET_FILTER && name != SO_PEERPIDFD;
	case IPPROTO_TCP:
		return name != TCP_INFO && name != TCP_CC_INFO && name != TCP_TIMESTAMP && name != TCP_SAVED_SYN &&
		       name != TCP_ZEROCOPY_RECEIVE;
	case IPPROTO_IPV6: /* some numbers from 64 on are netfilter's: <linux/netfilter_ipv6/ip6_tables.h> */
		return name < 64 || (name > 65 && name != 68 && name != 69 && name < 80);
	default: /* numbers from 64 on are netfilter's: <linux/netfilter_ipv4/ip_tables.h> */
		return name < 64;
	}
}

static void read_value(int fd, int level, int name, struct value *ret_value)
{
	ret_value->size = sizeof(ret_value->bytes);
	ret_value->unreadable = real.getsockopt(fd, level, name, ret_value->bytes, &ret_value->size);
	if (ret_value->unreadable)
		ret_value->size = 0;
}

/*
 * A value that fills the buffer may be cut off, so it equals no other. Two options that cannot be read count as the
 * same, whatever the errors: TCP_AO_REPAIR has another error on a listener.
 */
static bool is_same(const struct value *a, const struct value *b)
{
	return a->size == b->size && a->size < VALUE_BYTES && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* The kernel doubles the size that it is given. The FORCE option may exceed net.core.rmem_max, and needs privilege. */
static void set_buffer(int fd, int name, const struct value *value)
{
	int forced = name == SO_RCVBUF ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, size;

	memcpy(&size, value->bytes, sizeof(size));
	if (!set_int(fd, SOL_SOCKET, forced, size / 2))
		set_int(fd, SOL_SOCKET, name, size / 2);
}

static void set_value(int fd, int level, int name, const struct value *value)
{
	if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_SNDBUF))
		set_buffer(fd, name, value);
	else
		real.setsockopt(fd, level, name, value->bytes, value->size);
}

static bool option_is_same(int from, int to, int level, int name)
{
	struct value wanted, present;

	if (!is_compared(level, name))
		return true;
	read_value(from, level, name, &wanted);
	read_value(to, level, name, &present);
	return is_same(&wanted, &present);
}

static bool copy_option(int from, int to, int level, int name)
{
	struct value wanted;

	if (option_is_same(from, to, level, name))
		return true;
	read_value(from, level, name, &wanted);
	if (!wanted.unreadable)
		set_value(to, level, name, &wanted);
	return option_is_same(from, to, level, name);
}

static bool for_each_option(int from, int to, bool (*visit)(int from, int to, int level, int name))
{
	bool all = true;

	for (size_t i = 0; i < COUNT(levels); i++)
		for (int name = 0; name < OPTIONS_END; name++)
			all = visit(from, to, levels[i], name) && all;
	return all;
}

/*
 * Has the socket a filter? A classic filter is counted in instructions. The kernel answers EACCES for a filter that is
 * an eBPF program.
 */
static bool has_filter(int fd)
{
	socklen_t instructions = 0;

	if (real.getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &instructions))
		return errno == EACCES;
	return instructions > 0;
}

void options_copy(int from, int to)
{
	for_each_option(from, to, copy_option);
}

/* All options are compared again, because setting one may have changed another one. */
bool options_make_equal(int from, int to)
{
	options_copy(from, to);
	return for_each_option(from, to, option_is_same) && !has_filter(from);
}

bool option_follows(int from, int to, int level, int name)
{
	return !has_filter(from) && copy_option(from, to, level, name);
}

/* One bit for each option that the library has once read successfully, so that it asks the kernel once for each. */
static _Atomic uint64_t readable[COUNT(levels)][OPTIONS_END / 64];

bool option_can_be_copied(int fd, int level, int name)
{
	struct value value = { 0 };

	if (level == SOL_SOCKET && name == SO_INCOMING_CPU)
		return false; /* the application chooses the CPUs itself */
	for (size_t i = 0; i < COUNT(levels); i++) {
		if (levels[i] != level || name < 0 || name >= OPTIONS_END)
			continue;
		if (atomic_load_explicit(&readable[i][name / 64], memory_order_relaxed) >> (name % 64) & 1)
			return true;
		if (is_compared(level, name))
			read_value(fd, level, name, &value);
		if (!value.unreadable)
			atomic_fetch_or(&readable[i][name / 64], 1ULL << (name % 64));
		return !value.unreadable;
	}
	return false;
}
