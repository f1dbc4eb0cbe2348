// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * The emulated NIC: it decides which CPU of the receiver handles a packet.
 *
 * A veth has queues but no classifier. This program runs at the sender's egress, where skb->hash can still be set. The
 * receiving end has RPS on, and RPS takes CPU number (hash * cpus) >> 32 of its mask (get_rps_cpu() in net/core/dev.c).
 * So the program chooses the CPU by the hash that it writes. The other bits of the hash are the flow's own, as with a
 * NIC: RFS finds its flows by them.
 */
#include "steering.h"

/* A hash that RPS maps to this CPU; never 0, which the kernel takes for "no hash". */
static __always_inline __u32 hash_for(__u32 cpu, __u32 flow_hash)
{
	__u32 cpus = settings.cpus, first, shift = 0;
	__u16 position = cpu < MAX_CPUS ? settings.position[cpu] : 0;

	if (!cpus || !position)
		return 0;
#pragma unroll
	for (__u32 bit = 0; bit < 10; bit++)
		shift += 1U << bit < cpus;
	first = (((__u64)(position - 1) << 32) + cpus - 1) / cpus;
	return first + (flow_hash >> shift) ?: 1;
}

static __always_inline __u32 rps_hash_of(struct __sk_buff *skb)
{
	struct flow flow = {};
	__u32 hash;

	if (!parse(skb, HOOK_TC, &flow))
		return 0;
	hash = toeplitz(&flow);
	return hash_for(choose(skb, &flow, hash), hash);
}

SEC("tc")
int steer(struct __sk_buff *skb)
{
	__u32 hash = rps_hash_of(skb);

	if (hash)
		bpf_set_hash(skb, hash);
	return TC_ACT_UNSPEC;
}

/* For test runs: the packet's Toeplitz hash, and the hash that steer() would set, as return values. */
SEC("tc")
int rss_hash(struct __sk_buff *skb)
{
	struct flow flow = {};

	return parse(skb, HOOK_TC, &flow) ? (int)toeplitz(&flow) : 0;
}

SEC("tc")
int rps_hash(struct __sk_buff *skb)
{
	return (int)rps_hash_of(skb);
}
