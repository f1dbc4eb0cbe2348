// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * Walk: on which CPU does each step of a connection through a proxy happen? The steps are the packets of the
 * handshakes, as they come in (after the NIC has chosen a CPU) and go out, the sockets' states, and the application's
 * first read.
 */
#include <bpf/bpf_endian.h>

#include "kernel.h"

#define ETH_P_IP 0x0800
#define TCP_ESTABLISHED 1 /* <net/tcp_states.h> */
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define MAX_EVENTS 32768

/* bench/walk.py writes this. */
__u32 server_netns = 1; /* inode number */

/* bench/walk.py reads the events: class What has these numbers, and an event is "=QIHHHHI". */
enum what { SYN_IN, SYN_ACK_OUT, ACK_IN, ACCEPTED, READ, CONNECTING, SYN_OUT, SYN_ACK_IN, CONNECTED, ACK_OUT };
_Static_assert(SYN_IN == 0 && READ == 4 && ACK_OUT == 9, "What");
struct event {
	__u64 ns;
	__u32 thread;
	__u16 cpu, what;
	__u16 local_port, remote_port;
	__u32 unused;
};
_Static_assert(offsetof(struct event, thread) == 8 && offsetof(struct event, cpu) == 12 &&
                       offsetof(struct event, what) == 14 && offsetof(struct event, local_port) == 16 &&
                       offsetof(struct event, remote_port) == 18 && sizeof(struct event) == 24,
               "_EVENT");
struct {
	__u64 seen; /* how many events there were; those after the first MAX_EVENTS were not kept */
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

/* The SYN and ACK flags of a segment that may belong to a handshake; 0: it is any other packet. */
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
	if (!is_tcp_in(sk, server_netns))
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
	if (is_tcp_in(sk, server_netns))
		note(READ, sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	return 0;
}

/* fastsocket/reads.py chooses one of these two; reads.h says how they differ. */
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
