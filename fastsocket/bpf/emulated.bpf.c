// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * The emulated NIC: it decides which CPU of the receiver handles a packet.
 *
 * A veth has queues but no classifier. This program runs at the sender's egress, and has two ways to choose.
 *
 * By queue: what is sent on queue i is received on queue i (veth_xmit() in drivers/net/veth.c), whose thread is pinned
 * to a CPU. The program writes skb->queue_mapping, from which the kernel then takes the queue (skb_tx_hash() in
 * net/core/dev.c).
 *
 * By RPS: the receiving end has RPS on, and RPS takes CPU number (hash * cpus) >> 32 of its mask (get_rps_cpu() in
 * net/core/dev.c). The program writes skb->hash. The other bits of the hash are the flow's own, as with a NIC: RFS
 * finds its flows by them.
 */
#include "steering.h"

/* The position of a CPU among those to choose from, plus 1; 0: the CPU is not among them. */
static __always_inline __u32 position_of(__u32 cpu)
{
	asm volatile("" : "+r"(cpu)); /* clang knows a limit of the number that the verifier does not see */
	return cpu < MAX_CPUS ? settings.position[cpu] : 0;
}

/*
 * A hash that RPS maps to the CPU at this position. It is never 0, which the kernel takes for "no hash". For position
 * 0, which is no CPU's, there is none, and 0 is returned.
 */
static __always_inline __u32 hash_for(__u32 position, __u32 flow_hash)
{
	__u32 cpus = settings.cpus, first, shift = 0;

	if (!cpus || !position)
		return 0;
#pragma unroll
	for (__u32 bit = 0; bit < 10; bit++)
		shift += 1U << bit < cpus;
	first = (((__u64)(position - 1) << 32) + cpus - 1) / cpus;
	return first + (flow_hash >> shift) ?: 1;
}

/*
 * The position of the CPU that shall handle the packet, or 0: the kernel chooses. *hash becomes the packet's own hash.
 */
static __always_inline __u32 chosen(struct __sk_buff *skb, __u32 *hash)
{
	struct flow flow = {};

	if (!parse(skb, HOOK_TC, &flow))
		return 0;
	*hash = toeplitz(&flow);
	return position_of(choose(skb, &flow, *hash));
}

SEC("tc")
int steer(struct __sk_buff *skb)
{
	__u32 hash = 0, position = chosen(skb, &hash);

	if (settings.by_queue)
		skb->queue_mapping = position; /* queue number plus 1, as in skb_record_rx_queue() */
	else if (position)
		bpf_set_hash(skb, hash_for(position, hash));
	return TC_ACT_UNSPEC;
}

/* For tests: rss_hash() returns the packet's Toeplitz hash, and rps_hash() the hash that steer() would set. */
SEC("tc")
int rss_hash(struct __sk_buff *skb)
{
	struct flow flow = {};

	return parse(skb, HOOK_TC, &flow) ? (int)toeplitz(&flow) : 0;
}

SEC("tc")
int rps_hash(struct __sk_buff *skb)
{
	__u32 hash = 0, position = chosen(skb, &hash);

	return (int)hash_for(position, hash);
}
