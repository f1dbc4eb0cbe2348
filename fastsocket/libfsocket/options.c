// SPDX-License-Identifier: MIT
/*
 * A clone has to be equal to its listener, because accepted connections inherit all that is set on the socket they
 * come from. The kernel is asked for every option of both sockets, by number, so that options of kernels to come are
 * compared, too. What differs is set on the clone, and all is compared again. Sources: socket(7), ip(7), ipv6(7),
 * tcp(7); Linux net/core/sock.c, sk_getsockopt().
 *
 * Some options can be set and not be read: TCP_MD5SIG, SO_ATTACH_BPF, IP_XFRM_POLICY and others. A listener on which
 * the application set one of these gets no clones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "fsocket.h"

#define OPTIONS_END 128 /* past the highest number that any of these levels has, with room for more */
#define VALUE_BYTES 256

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static const int levels[] = { SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP };

struct value {
	socklen_t size;
	int error;
	unsigned char bytes[VALUE_BYTES];
};

/*
 * What says nothing about equality: the library's own marks, numbers that each socket has for itself, counters, and
 * what reading would change (SO_ERROR is cleared by it, SO_PEERPIDFD opens a descriptor). SO_GET_FILTER counts in
 * instructions: has_filter() asks for it.
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
	case IPPROTO_IPV6: /* from 64 on some numbers are of netfilter: <linux/netfilter_ipv6/ip6_tables.h> */
		return name < 64 || (name > 65 && name != 68 && name != 69 && name < 80);
	default: /* from 64 on: <linux/netfilter_ipv4/ip_tables.h> */
		return name < 64;
	}
}

static void read_value(int fd, int level, int name, struct value *ret_value)
{
	ret_value->size = sizeof(ret_value->bytes);
	ret_value->error = real.getsockopt(fd, level, name, ret_value->bytes, &ret_value->size) ? errno : 0;
}

/* A value that fills the buffer may have been cut off. Why an option cannot be read may depend on listening: TCP_AO_REPAIR. */
static bool is_same(const struct value *a, const struct value *b)
{
	if (a->error || b->error)
		return a->error && b->error;
	return a->size == b->size && a->size < VALUE_BYTES && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* The kernel doubles the size that it is given. Only the second name may exceed net.core.rmem_max, and needs privilege. */
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
	if (!wanted.error)
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

bool options_copy(int from, int to)
{
	return for_each_option(from, to, copy_option);
}

/* Setting one option may have changed another one, so all are compared once more. */
bool options_make_equal(int from, int to)
{
	options_copy(from, to);
	return for_each_option(from, to, option_is_same) && !has_filter(from);
}

bool option_follows(int from, int to, int level, int name)
{
	return !has_filter(from) && copy_option(from, to, level, name);
}

/* A classic filter is counted in instructions. The kernel answers EACCES for a filter that is an eBPF program. */
bool has_filter(int fd)
{
	socklen_t instructions = 0;

	if (real.getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &instructions))
		return errno == EACCES;
	return instructions > 0;
}

/* ---- what the application sets --------------------------------------------------------------------------------- */

/* Options that were read successfully before, a bit each: the kernel is asked once for each. */
static _Atomic uint64_t readable[COUNT(levels)][OPTIONS_END / 64];

/* Can a clone get what the application has just set? The library looks at what is not compared elsewhere. */
bool option_can_be_copied(int fd, int level, int name)
{
	struct value value = { 0 };

	if (level == SOL_SOCKET && name == SO_INCOMING_CPU)
		return false; /* the application chooses CPUs itself */
	for (size_t i = 0; i < COUNT(levels); i++) {
		if (levels[i] != level || name < 0 || name >= OPTIONS_END)
			continue;
		if (atomic_load_explicit(&readable[i][name / 64], memory_order_relaxed) >> (name % 64) & 1)
			return true;
		if (is_compared(level, name))
			read_value(fd, level, name, &value);
		if (!value.error)
			atomic_fetch_or(&readable[i][name / 64], 1ULL << (name % 64));
		return !value.error;
	}
	return false;
}
