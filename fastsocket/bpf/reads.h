/* SPDX-License-Identifier: (MIT OR GPL-2.0) */
/*
 * What a read of a TCP socket tells: did the reader's CPU handle the packet, and is it the connection's first read?
 *
 * Two tracepoints show reads. Both run in the reader's context. fastsocket/reads.py chooses one of them:
 *
 * sock_recv_length (Linux 6.3, commit 6e6eda44b939) is hit once for each read.
 *
 * tcp_rcv_space_adjust (Linux 4.18, commit 6163849d289b) is hit in tcp_recvmsg() for each buffer of the socket's queue,
 * after the buffer was copied. It tells neither length nor flags: a read of several buffers counts as several reads,
 * and MSG_PEEK counts as a read. A read is the first one if only one segment of data has come and all of it was read.
 * If a first request takes several segments, no first read is seen.
 */
#pragma once
#include "kernel.h"

#define MSG_PEEK 2
#define RCV_SHUTDOWN 1 /* <net/sock.h>: the other side's FIN has come */

/* skc_incoming_cpu is the CPU whose softirq last handled a segment of the socket. */
static __always_inline bool is_local(struct sock *sk)
{
	return sk->__sk_common.skc_incoming_cpu == (int)bpf_get_smp_processor_id();
}

/* For sock_recv_length: is this a read of data, and neither a look (MSG_PEEK) nor the end of the connection? */
static __always_inline bool is_read(int length, int flags)
{
	return length > 0 && !(flags & MSG_PEEK);
}

/*
 * For sock_recv_length: is this the connection's first read? Yes if the application has read as much of the connection
 * as this read returns, and no more.
 *
 * bytes_received counts a FIN, which copied_seq passes once all data before the FIN was read.
 */
static __always_inline bool is_first_of(struct sock *sk, int length)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u32 first;
	bool end_too;

	if (!tcp)
		return false;
	first = tcp->rcv_nxt - (__u32)tcp->bytes_received;
	end_too = tcp->copied_seq == tcp->rcv_nxt && sk->sk_shutdown & RCV_SHUTDOWN;
	return tcp->copied_seq - first - end_too == (__u32)length;
}

/* For tcp_rcv_space_adjust: is it the connection's first read, as far as that tracepoint shows? */
static __always_inline bool is_whole_first_segment(struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	return tcp && tcp->data_segs_in == 1 && tcp->copied_seq == tcp->rcv_nxt;
}
