// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * Locality probe: does the application read a packet on the CPU whose softirq handled the packet?
 *
 * Both tracepoints run in the reader's context. skc_incoming_cpu is the CPU whose softirq last handled a segment of the
 * socket. probes/reads.py chooses one of the tracepoints:
 *
 * sock_recv_length (Linux 6.3, commit 6e6eda44b939) is hit once for each read. A read that returns all bytes that the
 * connection ever received is its first read. The worker that accepted the connection makes it.
 *
 * tcp_rcv_space_adjust (Linux 4.18, commit 6163849d289b) is hit in tcp_recvmsg() for each buffer of the socket's queue,
 * after the buffer was copied. It tells neither length nor flags: a read of several buffers counts as several reads,
 * and MSG_PEEK counts as a read. A read is the first one if only one segment of data has come and all of it was read.
 * If a first request takes several segments, no first read is seen.
 */
#include "kernel.h"

#define MSG_PEEK 2

/* probes/trial.py writes this before each trial. */
struct {
	__u32 server_netns;          /* inode number */
	__u32 first_port, last_port; /* connections on these local ports are passive, all others active */
} watched = { .first_port = 80, .last_port = 80 };

/* probes/trial.py reads this for each CPU, as "=6Q". */
struct locality {
	__u64 passive_reads, passive_local;
	__u64 active_reads, active_local;
	__u64 accepts, accepts_local;
};
_Static_assert(sizeof(struct locality) == 6 * sizeof(__u64), "_LOCALITY");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locality);
} totals SEC(".maps");

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
	if (length <= 0 || flags & MSG_PEEK || !is_tcp_in(sk, watched.server_netns))
		return 0;
	return count(sk, BPF_CORE_READ((struct tcp_sock *)sk, bytes_received) == (__u64)length);
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	if (!is_tcp_in(sk, watched.server_netns))
		return 0;
	return count(sk, BPF_CORE_READ(tcp, data_segs_in) == 1 &&
	                         BPF_CORE_READ(tcp, copied_seq) == BPF_CORE_READ(tcp, rcv_nxt));
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
