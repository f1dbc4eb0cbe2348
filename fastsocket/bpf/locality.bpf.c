// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * Locality probe: does the application read a packet on the CPU whose softirq handled the packet?
 *
 * reads.h says what a read tells. A connection's first read stands for its accept, because the worker that accepted the
 * connection makes that read.
 */
#include "reads.h"

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
	bool local = is_local(sk);

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
	if (!is_read(length, flags) || !is_tcp_in(sk, watched.server_netns))
		return 0;
	return count(sk, is_first_of(sk, length));
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	if (!is_tcp_in(sk, watched.server_netns))
		return 0;
	return count(sk, is_whole_first_segment(sk));
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
