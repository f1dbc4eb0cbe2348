/* SPDX-License-Identifier: (MIT OR GPL-2.0) */
/* The members of the kernel's structures that the probes read; libbpf finds where this kernel keeps them (CO-RE). */
#pragma once
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	unsigned int inum;
};
struct net {
	struct ns_common ns;
};
typedef struct {
	struct net *net;
} possible_net_t;
struct nsproxy {
	struct net *net_ns;
};
struct pid_namespace {
	struct ns_common ns;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};
struct task_struct {
	int pid;
	struct task_struct *real_parent, *group_leader;
	struct pid *thread_pid;
	struct nsproxy *nsproxy;
};
struct net_device {
	possible_net_t nd_net;
};
struct sk_buff {
	struct net_device *dev;
	unsigned char *head;
	__u16 network_header;
	__be16 protocol;
};
struct sock_common {
	unsigned short skc_family;
	__be16 skc_dport;
	__u16 skc_num;
	int skc_incoming_cpu;
	possible_net_t skc_net;
};
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	__u8 sk_shutdown;
};
struct tcp_sock {
	__u32 rcv_nxt, copied_seq;
	__u32 data_segs_in;
	__u64 bytes_received;
};
#pragma clang attribute pop

#define IPPROTO_TCP 6

static __always_inline bool is_tcp(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP;
}

/* Is this a TCP socket of the network namespace with this inode number? */
static __always_inline bool is_tcp_in(struct sock *sk, __u32 netns)
{
	return is_tcp(sk) && sk->__sk_common.skc_net.net->ns.inum == netns;
}
