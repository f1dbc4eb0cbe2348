// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * Locality probe: was a packet handled in softirq on the CPU whose application reads it?
 *
 * Both tracepoints run in the reader's context; skc_incoming_cpu is where softirq last handled a segment of the socket.
 * bench/reads.py chooses one of them:
 *
 * sock_recv_length (Linux 6.3, commit 6e6eda44b939) comes once for each read. A read that returns all bytes the
 * connection ever received is its first, made by the worker that accepted it.
 *
 * tcp_rcv_space_adjust (Linux 4.18, commit 6163849d289b) comes in tcp_recvmsg() for each buffer of the socket's queue,
 * once it has been copied. It tells neither length nor flags: a read of several buffers counts as several, and MSG_PEEK
 * as a read. A first read is one after which all is read that came, while only one segment of data has come; where a
 * first request takes several segments no first read is seen.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
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
struct sock_common {
	unsigned short skc_family;
	__u16 skc_num;
	int skc_incoming_cpu;
	possible_net_t skc_net;
} __attribute__((preserve_access_index));
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
} __attribute__((preserve_access_index));
struct tcp_sock {
	__u32 rcv_nxt, copied_seq;
	__u32 data_segs_in;
	__u64 bytes_received;
} __attribute__((preserve_access_index));

#define IPPROTO_TCP 6
#define MSG_PEEK 2

/* Written by bench/probes.py before each trial. */
struct {
	__u32 server_netns;          /* inode number */
	__u32 first_port, last_port; /* connections on these local ports are passive, all others active */
} watched = { .first_port = 80, .last_port = 80 };

/* Read by bench/probes.py: per CPU, in this order. */
struct locality {
	__u64 passive_reads, passive_local;
	__u64 active_reads, active_local;
	__u64 accepts, accepts_local;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locality);
} totals SEC(".maps");

static __always_inline bool is_watched(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP && sk->__sk_common.skc_net.net->ns.inum == watched.server_netns;
}

static __always_inline int count(struct sock *sk, bool is_first)
{
	__u32 zero = 0;
	struct locality *seen = bpf_map_lookup_elem(&totals, &zero);
	bool local = sk->__sk_common.skc_incoming_cpu == (int)bpf_get_smp_processor_id();

	if (!seen)
		return 0;
	if (sk->__sk_common.skc_num < watched.first_port || sk->__sk_common.skc_num > watched.last_port) {
		seen->active_reads++;
		seen->active_local += local;
		return 0;
	}
	seen->passive_reads++;
	seen->passive_local += local;
	seen->accepts += is_first;
	seen->accepts_local += is_first && local;
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int length, int flags)
{
	if (length <= 0 || flags & MSG_PEEK || !is_watched(sk))
		return 0;
	return count(sk, BPF_CORE_READ((struct tcp_sock *)sk, bytes_received) == (__u64)length);
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	if (!is_watched(sk))
		return 0;
	return count(sk, BPF_CORE_READ(tcp, data_segs_in) == 1 &&
	                         BPF_CORE_READ(tcp, copied_seq) == BPF_CORE_READ(tcp, rcv_nxt));
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
