// SPDX-License-Identifier: (MIT OR GPL-2.0)
/* Steering on the receiving device itself: XDP hands each packet to the kernel thread of a CPU (cpumap). */
#include "steering.h"

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP); /* resized to the number of CPUs: the kernel refuses more entries */
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} cpus SEC(".maps");

static __always_inline __u32 cpu_of(struct xdp_md *frame)
{
	struct flow flow = {};

	return parse(frame, HOOK_XDP, &flow) ? choose(frame, &flow, toeplitz(&flow)) : NO_CPU;
}

SEC("xdp")
int fastsocket_nic(struct xdp_md *frame)
{
	__u32 cpu = cpu_of(frame);

	return cpu < MAX_CPUS ? (int)bpf_redirect_map(&cpus, cpu, XDP_PASS) : XDP_PASS;
}

/* For tests: returns the CPU that fastsocket_nic() would choose. */
SEC("xdp")
int chosen_cpu(struct xdp_md *frame)
{
	return (int)cpu_of(frame);
}
