// SPDX-License-Identifier: (MIT OR GPL-2.0)
/*
 * `fastsocket measure`: what each thread of a live server reads, on which CPU, and how often it waits for locks and
 * calls the kernel.
 */
#include "reads.h"

#define MAX_LEVEL 8 /* how many PID namespaces within each other are looked at; the kernel has 32 at most */
#define FIRST_PID_NAMESPACE 0xEFFFFFFC /* PROC_PID_INIT_INO in <linux/proc_ns.h> */

/* fastsocket/measure/probe.py writes this. */
struct {
	__u64 listening
		[1024];      /* a bit for each port: connections on these local ports are passive, all others active */
	__u32 pid_namespace; /* inode number: the PID namespace whose process numbers probe.py knows */
} watched = { .pid_namespace = 1 };

/* fastsocket/measure/probe.py reads this, as "=9Q". */
struct row {
	__u64 passive_reads, passive_local;
	__u64 passive_firsts, passive_firsts_local;
	__u64 active_reads, active_local, active_firsts;
	__u64 contentions, calls;
};
_Static_assert(sizeof(struct row) == 9 * sizeof(__u64), "_ROW");

/*
 * The processes of the server that were found when measuring began. fastsocket/measure/probe.py makes the maps as large
 * as the server takes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} processes SEC(".maps");

/* A row for each thread of these processes. Only the thread itself counts in its row. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct row);
} threads SEC(".maps");

/*
 * The number by which the watched PID namespace knows a task; 0: the task is not in it. Outside of containers this is
 * one load: the lookup below takes some 100 ns, at each read and each contended lock of the machine.
 */
static __always_inline __u32 number_of(struct task_struct *task)
{
	struct pid *pid;
	int level;

	if (watched.pid_namespace == FIRST_PID_NAMESPACE)
		return task->pid;
	pid = BPF_CORE_READ(task, thread_pid);
	level = BPF_CORE_READ(pid, level);

	for (int i = 0; i <= MAX_LEVEL; i++) {
		struct upid at;

		if (i > level)
			break;
		bpf_probe_read_kernel(&at, sizeof(at),
		                      (void *)pid + bpf_core_field_offset(struct pid, numbers) + i * sizeof(at));
		if (BPF_CORE_READ(at.ns, ns.inum) == watched.pid_namespace)
			return at.nr;
	}
	return 0;
}

static __always_inline bool is_watched(struct task_struct *process)
{
	__u32 number = number_of(process);

	return bpf_map_lookup_elem(&processes, &number) != NULL;
}

/* The row of a thread; NULL: there is none yet. */
static __always_inline struct row *row_of(struct task_struct *task)
{
	__u32 number = number_of(task);

	return bpf_map_lookup_elem(&threads, &number);
}

/*
 * Makes a row for a thread that has started since: a thread of a known process, or of a new worker that such a process
 * has made. NULL: the thread is not the server's.
 */
static __always_inline struct row *new_row_of(struct task_struct *task)
{
	struct task_struct *process = task->group_leader;
	__u32 number = number_of(task);
	struct row empty = {};

	if (!is_watched(process) && !is_watched(process->real_parent))
		return NULL;
	bpf_map_update_elem(&threads, &number, &empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&threads, &number);
}

static __always_inline bool is_passive(struct sock *sk)
{
	__u16 port = sk->__sk_common.skc_num;

	return watched.listening[port >> 6] >> (port & 63) & 1;
}

static __always_inline int count(struct row *row, struct sock *sk, bool is_first)
{
	bool local = is_local(sk);

	if (is_passive(sk)) {
		row->passive_reads++;
		row->passive_local += local;
		row->passive_firsts += is_first;
		row->passive_firsts_local += is_first && local;
	} else {
		row->active_reads++;
		row->active_local += local;
		row->active_firsts += is_first;
	}
	return 0;
}

static __always_inline struct row *reader(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct row *row = row_of(task);

	return row ? row : new_row_of(task);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int length, int flags)
{
	struct row *row;

	if (!is_read(length, flags) || !is_tcp(sk))
		return 0;
	row = reader();
	return row ? count(row, sk, is_first_of(sk, length)) : 0;
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	struct row *row = reader();

	return row ? count(row, sk, is_whole_first_segment(sk)) : 0;
}

/* A thread waits for a lock of the kernel. If it has no row, none is made, because that takes a lock itself. */
SEC("tp_btf/contention_begin")
int BPF_PROG(contention_begin, void *lock, unsigned int flags)
{
	struct row *row = row_of(bpf_get_current_task_btf());

	if (row)
		row->contentions++;
	return 0;
}

/* Each system call of the machine is slower while this is attached. */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, void *registers, long number)
{
	struct row *row = row_of(bpf_get_current_task_btf());

	if (row)
		row->calls++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
