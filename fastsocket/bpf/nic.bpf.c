// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * The emulated NIC: decides on which CPU of the receiver a packet is handled.
 *
 * A veth has queues but no classifier. This program stands at the sender's egress, where skb->hash may still be set,
 * and the receiving end has RPS on: RPS takes CPU number (hash * cpus) >> 32 of its mask (get_rps_cpu() in
 * net/core/dev.c), so the hash written here is the choice of CPU.
 *
 * RSS as in NICs: Toeplitz hash of addresses and ports, its low 7 bits index an indirection table of 128 entries.
 * Perfect filtering as in Fastsocket's Receive Flow Deliver over Flow-Director: a packet from a well-known port answers
 * an active connection and goes to CPU (destination port & mask), where connect() had encoded it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INDIRECTION_ENTRIES 128
#define MAX_CPUS 1024
#define MAX_INPUT 36 /* two IPv6 addresses and two ports */
#define WELL_KNOWN_PORTS 1024

enum mode { MODE_RSS, MODE_PERFECT };

/* Written by fastsocket/nic.py before load: contributions[i][b] is what byte b at position i adds to the hash. */
const volatile __u32 contributions[MAX_INPUT][256];

/* Written by fastsocket/nic.py at any time. */
struct settings {
	__u32 mode;
	__u32 cpus;
	__u32 active_mask;
	__u32 indirection[INDIRECTION_ENTRIES]; /* to the position of a CPU in the receiver's RPS mask */
	__u32 hash_for_cpu[MAX_CPUS];           /* a hash that RPS turns into that position */
} settings = { .cpus = 1 };

struct flow {
	__u8 input[MAX_INPUT]; /* source, destination address, source, destination port, in network order */
	__u32 length;
	__u16 source, destination; /* ports in host order, 0 where there are none */
};

static __always_inline bool load_ports(struct __sk_buff *skb, __u32 offset, __u8 protocol, struct flow *flow,
				       __u8 *into)
{
	__be16 ports[2];

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return false;
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return false;
	__builtin_memcpy(into, ports, sizeof(ports));
	flow->source = bpf_ntohs(ports[0]);
	flow->destination = bpf_ntohs(ports[1]);
	return true;
}

static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct flow *flow)
{
	struct iphdr ip;
	bool fragment;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	__builtin_memcpy(flow->input, &ip.saddr, 8);
	flow->length = 8;
	fragment = ip.frag_off & bpf_htons(0x3fff); /* offset or more to come: not every piece has ports */
	if (!fragment && load_ports(skb, ETH_HLEN + ip.ihl * 4, ip.protocol, flow, flow->input + 8))
		flow->length = 12;
	return true;
}

static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct flow *flow)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	__builtin_memcpy(flow->input, &ip.saddr, 32);
	flow->length = 32;
	/* Like most NICs: behind extension headers only the addresses count. */
	if (load_ports(skb, ETH_HLEN + sizeof(ip), ip.nexthdr, flow, flow->input + 32))
		flow->length = 36;
	return true;
}

static __always_inline bool parse(struct __sk_buff *skb, struct flow *flow)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(skb, flow);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(skb, flow);
	return false;
}

static __always_inline __u32 toeplitz(const struct flow *flow)
{
	__u32 hash = 0;

#pragma unroll
	for (__u32 i = 0; i < MAX_INPUT; i++)
		if (i < flow->length)
			hash ^= contributions[i][flow->input[i]];
	return hash;
}

/* The position of a CPU in the RPS mask. */
static __always_inline __u32 choose(const struct flow *flow)
{
	if (settings.mode == MODE_PERFECT && flow->source && flow->source < WELL_KNOWN_PORTS) {
		__u32 cpu = flow->destination & settings.active_mask;

		if (cpu < settings.cpus)
			return cpu;
	}
	return settings.indirection[toeplitz(flow) % INDIRECTION_ENTRIES];
}

SEC("tc")
int nic(struct __sk_buff *skb)
{
	struct flow flow = {};

	if (parse(skb, &flow))
		bpf_set_hash(skb, settings.hash_for_cpu[choose(&flow) % MAX_CPUS]);
	return TC_ACT_UNSPEC;
}

/* For the published test vectors: the Toeplitz hash of the packet as the return value of a test run. */
SEC("tc")
int rss_hash(struct __sk_buff *skb)
{
	struct flow flow = {};

	return parse(skb, &flow) ? (int)toeplitz(&flow) : 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
