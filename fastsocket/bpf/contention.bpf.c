// SPDX-License-Identifier: (MIT OR GPL-2.0)
/* Lock contention probe: how often a thread had to wait for a kernel lock, on the whole machine. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} contentions SEC(".maps");

SEC("tp_btf/contention_begin")
int BPF_PROG(contention_begin, void *lock, unsigned int flags)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&contentions, &zero);

	if (seen)
		++*seen;
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
