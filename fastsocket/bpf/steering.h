/* SPDX-License-Identifier: (MIT OR GPL-2.0) */
/*
 * Which CPU handles a packet: the part that the emulated NIC and XDP share.
 *
 * RSS, as in NICs: the low 7 bits of the Toeplitz hash of addresses and ports index a table of 128 CPUs.
 *
 * Perfect filtering, as in Fastsocket's Receive Flow Deliver (RFD) over Flow-Director: there are rules by destination
 * port. Packets of active connections go to the CPU that connect() encoded in their destination port.
 *
 * ATR, Application Targeting Routing, as in Intel's 82599 and its driver ixgbe: packets go to the CPU that last sent on
 * the flow.
 *
 * If no rule and no entry of ATR's table matches, RSS decides.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INDIRECTION_ENTRIES 128
#define MAX_CPUS 1024
#define MAX_INPUT 36 /* two IPv6 addresses and two ports */
#define WELL_KNOWN_PORTS 1024
#define PORTS 65536
#define NO_CPU MAX_CPUS

/*
 * ixgbe gives the filters 64 KiB of packet memory by default, which hold 8k signatures, and looks at every 20th packet
 * that a queue sends. If two flows fall to one entry, the last one stays here; the 82599 has short chains instead.
 */
#define LEARNED_ENTRIES 8192
#define SAMPLE_RATE 20
#define TCP_FLAGS_OFFSET 13
#define TCP_FIN 0x01
#define TCP_SYN 0x02

enum mode { MODE_RSS, MODE_ATR, MODE_PERFECT };
enum hook { HOOK_TC, HOOK_XDP };

/* fastsocket/steering/program.py writes this before loading: [i][b] is what byte b at position i adds to the hash. */
const volatile __u32 contributions[MAX_INPUT][256];

/* fastsocket/steering/program.py writes this at any time. */
struct settings {
	__u32 mode;
	__u32 cpus;         /* how many CPUs there are to choose from */
	__u32 machine_cpus; /* the n of the slides' hash(p) */
	__u32 port_mask;    /* ROUND_UP_POWER_OF_2(n) - 1 */
	__s32 netns;        /* the receiver's, as an id in the program's namespace; -1: the same one */
	__u32 by_queue;     /* the emulated NIC chooses a queue of the receiver, not a CPU for RPS */
	__u32 indirection[INDIRECTION_ENTRIES]; /* to CPU numbers */
	__u16 position[MAX_CPUS]; /* the CPU's position among those to choose from, plus 1; 0: it is not among them */
	__u16 port_rules[PORTS];  /* destination port to CPU number, plus 1; 0: no rule */
} settings = { .cpus = 1 };
_Static_assert(offsetof(struct settings, indirection) == 6 * 4 &&
                       offsetof(struct settings, position) == 6 * 4 + 4 * INDIRECTION_ENTRIES &&
                       sizeof(struct settings) == 6 * 4 + 4 * INDIRECTION_ENTRIES + 2 * MAX_CPUS + 2 * PORTS,
               "_HEAD and what follows");

/*
 * ATR's table. An entry is the hash of the arriving flow << 32 | CPU + 1: one word, so that a reader never sees half of
 * it.
 */
__u64 learned[LEARNED_ENTRIES];

/* How many packets were sent since the last one that ATR looked at. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} unsampled SEC(".maps");

struct flow {
	__u8 input[MAX_INPUT]; /* source, destination address, source, destination port, in network order */
	__u32 length;
	__u32 transport;           /* offset of the header that has the ports */
	__u8 protocol;             /* 0: the packet has no ports, and the members below mean nothing */
	__u16 source, destination; /* ports in host order */
};

static __always_inline long load(void *packet, enum hook hook, __u32 offset, void *into, __u32 length)
{
	return hook == HOOK_XDP ? bpf_xdp_load_bytes(packet, offset, into, length)
	                        : bpf_skb_load_bytes(packet, offset, into, length);
}

static __always_inline bool load_ports(void *packet, enum hook hook, __u32 offset, __u8 protocol, struct flow *flow,
                                       __u8 *into)
{
	__be16 ports[2];

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return false;
	if (load(packet, hook, offset, ports, sizeof(ports)))
		return false;
	__builtin_memcpy(into, ports, sizeof(ports));
	flow->protocol = protocol;
	flow->transport = offset;
	flow->source = bpf_ntohs(ports[0]);
	flow->destination = bpf_ntohs(ports[1]);
	return true;
}

static __always_inline bool parse_ipv4(void *packet, enum hook hook, struct flow *flow)
{
	struct iphdr ip;
	bool fragment;

	if (load(packet, hook, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	__builtin_memcpy(flow->input, &ip.saddr, 8);
	flow->length = 8;
	fragment =
		ip.frag_off & bpf_htons(0x3fff); /* an offset, or more fragments: only the first fragment has ports */
	if (!fragment && load_ports(packet, hook, ETH_HLEN + ip.ihl * 4, ip.protocol, flow, flow->input + 8))
		flow->length = 12;
	return true;
}

static __always_inline bool parse_ipv6(void *packet, enum hook hook, struct flow *flow)
{
	struct ipv6hdr ip;

	if (load(packet, hook, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	__builtin_memcpy(flow->input, &ip.saddr, 32);
	flow->length = 32;
	/* With extension headers only the addresses count, as with most NICs. */
	if (load_ports(packet, hook, ETH_HLEN + sizeof(ip), ip.nexthdr, flow, flow->input + 32))
		flow->length = 36;
	return true;
}

static __always_inline bool parse(void *packet, enum hook hook, struct flow *flow)
{
	__be16 protocol;

	if (load(packet, hook, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol)))
		return false;
	if (protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(packet, hook, flow);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(packet, hook, flow);
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

/*
 * Is there a listener at the packet's destination? The lookup has an impossible peer, so that it finds no connection.
 */
static __always_inline bool listener_exists(void *packet, const struct flow *flow)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *listener;
	__u32 length = sizeof(tuple.ipv4);

	if (flow->length == 12) {
		__builtin_memcpy(&tuple.ipv4.daddr, flow->input + 4, 4);
		tuple.ipv4.dport = bpf_htons(flow->destination);
	} else {
		__builtin_memcpy(&tuple.ipv6.daddr, flow->input + 16, 16);
		tuple.ipv6.dport = bpf_htons(flow->destination);
		length = sizeof(tuple.ipv6);
	}
	listener = bpf_sk_lookup_tcp(packet, &tuple, length, (__s64)settings.netns, 0);
	if (!listener)
		return false;
	bpf_sk_release(listener);
	return true;
}

/* Does the packet belong to an active connection? This applies the slides' classification rules 1, 2 and 3. */
static __always_inline bool is_active(void *packet, const struct flow *flow)
{
	if (flow->source < WELL_KNOWN_PORTS)
		return true;
	if (flow->destination < WELL_KNOWN_PORTS)
		return false;
	return !listener_exists(packet, flow);
}

/* The CPU to which a port belongs. fastsocket/steering/ports.py says the same in Python. */
static __always_inline __u32 core_of_port(__u16 port)
{
	__u32 core = port & settings.port_mask;

	return core < settings.machine_cpus ? core : core - settings.machine_cpus;
}

static __always_inline __u32 filtered(void *packet, const struct flow *flow)
{
	__u64 port = flow->destination;
	__u16 rule;

	/*
	 * The verifiers of Linux 6.1 and 6.12 forget the limit of a number at a byte swap. clang would drop a mask in
	 * plain C.
	 */
	asm volatile("%0 &= 0xffff" : "+r"(port));
	rule = settings.port_rules[port];
	if (rule)
		return rule - 1;
	return is_active(packet, flow) ? core_of_port(flow->destination) : NO_CPU;
}

static __always_inline __u32 looked_up(__u32 hash)
{
	__u64 entry = learned[hash % LEARNED_ENTRIES];

	return entry >> 32 == hash && (__u32)entry ? (__u32)entry - 1 : NO_CPU;
}

/* Which CPU shall handle the packet. */
static __always_inline __u32 choose(void *packet, const struct flow *flow, __u32 hash)
{
	__u32 cpu = NO_CPU;

	if (flow->protocol == IPPROTO_TCP && settings.mode == MODE_PERFECT)
		cpu = filtered(packet, flow);
	else if (flow->protocol == IPPROTO_TCP && settings.mode == MODE_ATR)
		cpu = looked_up(hash);
	if (cpu < MAX_CPUS && settings.position[cpu])
		return cpu;
	return settings.indirection[hash % INDIRECTION_ENTRIES];
}

static __always_inline void swap(__u8 *a, __u8 *b, __u32 length)
{
	for (__u32 i = 0; i < length; i++) {
		__u8 kept = a[i];

		a[i] = b[i];
		b[i] = kept;
	}
}

/* Turn a flow that the receiver sends into the flow that it receives. */
static __always_inline void reverse(struct flow *flow)
{
	if (flow->length == 12) {
		swap(flow->input, flow->input + 4, 4);
		swap(flow->input + 8, flow->input + 10, 2);
	} else {
		swap(flow->input, flow->input + 16, 16);
		swap(flow->input + 32, flow->input + 34, 2);
	}
}

/*
 * Does ATR look at this packet? It looks at every SYN and every 20th other packet that this CPU sends, but at no FIN
 * (ixgbe_atr() in ixgbe_main.c).
 */
static __always_inline bool sampled(__u8 tcp_flags)
{
	__u32 zero = 0, *passed = bpf_map_lookup_elem(&unsampled, &zero);

	if (!passed)
		return false;
	++*passed;
	if (tcp_flags & TCP_FIN || (!(tcp_flags & TCP_SYN) && *passed < SAMPLE_RATE))
		return false;
	*passed = 0;
	return true;
}

/* Runs at the receiver's own egress, for ATR: remembers which CPU sends on the flow. */
SEC("tc")
int learn(struct __sk_buff *skb)
{
	struct flow flow = {};
	__u8 tcp_flags;
	__u32 hash;

	if (settings.mode != MODE_ATR || !parse(skb, HOOK_TC, &flow) || flow.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, flow.transport + TCP_FLAGS_OFFSET, &tcp_flags, 1) || !sampled(tcp_flags))
		return TC_ACT_UNSPEC;
	reverse(&flow);
	hash = toeplitz(&flow);
	learned[hash % LEARNED_ENTRIES] = (__u64)hash << 32 | (bpf_get_smp_processor_id() + 1);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
