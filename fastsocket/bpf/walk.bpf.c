// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * Walk: on which CPU does each step of a connection through a proxy happen? Handshake packets as they come in (after
 * the NIC has chosen a CPU) and go out, the sockets' states, and the first read by the application.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* The members we read; libbpf finds where this kernel keeps them (CO-RE). */
struct ns_common {
	unsigned int inum;
} __attribute__((preserve_access_index));
struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));
typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;
struct net_device {
	possible_net_t nd_net;
} __attribute__((preserve_access_index));
struct sk_buff {
	struct net_device *dev;
	unsigned char *head;
	__u16 network_header;
	__be16 protocol;
} __attribute__((preserve_access_index));
struct sock_common {
	__be16 skc_dport;
	__u16 skc_num;
	possible_net_t skc_net;
} __attribute__((preserve_access_index));
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
} __attribute__((preserve_access_index));

#define ETH_P_IP 0x0800
#define IPPROTO_TCP 6
#define TCP_ESTABLISHED 1 /* <net/tcp_states.h> */
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define MAX_EVENTS 32768

/* Written by bench/walk.py. */
__u32 server_netns = 1; /* inode number */

/* Read by bench/walk.py, as are these numbers. */
enum what { SYN_IN, SYN_ACK_OUT, ACK_IN, ACCEPTED, READ, CONNECTING, SYN_OUT, SYN_ACK_IN, CONNECTED, ACK_OUT };
struct event {
	__u64 ns;
	__u32 thread;
	__u16 cpu, what;
	__u16 local_port, remote_port;
	__u32 unused;
};
struct {
	__u64 seen; /* more than MAX_EVENTS: the rest was not kept */
	struct event event[MAX_EVENTS];
} walk;

static __always_inline void note(enum what what, __u16 local_port, __u16 remote_port)
{
	__u64 i = __sync_fetch_and_add(&walk.seen, 1);

	if (i >= MAX_EVENTS)
		return;
	walk.event[i] = (struct event){
		.ns = bpf_ktime_get_ns(),
		.thread = (__u32)bpf_get_current_pid_tgid(),
		.cpu = (__u16)bpf_get_smp_processor_id(),
		.what = what,
		.local_port = local_port,
		.remote_port = remote_port,
	};
}

struct tcp_start {
	__be16 source, dest;
	__u32 seq, ack_seq;
	__u8 offset, flags;
} __attribute__((packed));

/* 0 unless it is a segment of a handshake, or like one: its flags. */
static __always_inline int handshake(struct sk_buff *skb, struct tcp_start *tcp)
{
	__u8 ip[20];
	unsigned char *header = skb->head + skb->network_header;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->dev->nd_net.net->ns.inum != server_netns ||
	    bpf_probe_read_kernel(ip, sizeof(ip), header) || ip[9] != IPPROTO_TCP ||
	    bpf_probe_read_kernel(tcp, sizeof(*tcp), header + (ip[0] & 0x0f) * 4) || tcp->flags & (FIN | RST))
		return 0;
	return tcp->flags & (SYN | ACK);
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(comes_in, struct sk_buff *skb)
{
	struct tcp_start tcp;
	int flags = handshake(skb, &tcp);

	if (flags)
		note(flags == SYN   ? SYN_IN
		     : flags == ACK ? ACK_IN
		                    : SYN_ACK_IN,
		     bpf_ntohs(tcp.dest), bpf_ntohs(tcp.source));
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(goes_out, struct sk_buff *skb)
{
	struct tcp_start tcp;
	int flags = handshake(skb, &tcp);

	if (flags)
		note(flags == SYN   ? SYN_OUT
		     : flags == ACK ? ACK_OUT
		                    : SYN_ACK_OUT,
		     bpf_ntohs(tcp.source), bpf_ntohs(tcp.dest));
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(changes_state, struct sock *sk, int before, int after)
{
	if (sk->sk_protocol != IPPROTO_TCP || sk->__sk_common.skc_net.net->ns.inum != server_netns)
		return 0;
	if (before == TCP_SYN_RECV && after == TCP_ESTABLISHED)
		note(ACCEPTED, sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	else if (after == TCP_SYN_SENT)
		note(CONNECTING, sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	else if (before == TCP_SYN_SENT && after == TCP_ESTABLISHED)
		note(CONNECTED, sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	return 0;
}

static __always_inline int is_read(struct sock *sk)
{
	if (sk->sk_protocol == IPPROTO_TCP && sk->__sk_common.skc_net.net->ns.inum == server_netns)
		note(READ, sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	return 0;
}

/* One of these two, which bench/reads.py chooses; locality.bpf.c says how they differ. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int length, int flags)
{
	return length > 0 ? is_read(sk) : 0;
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	return is_read(sk);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
