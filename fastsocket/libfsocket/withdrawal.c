// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <linux/filter.h>

#include "balance.h"
#include "clock.h"
#include "clone.h"
#include "group.h"
#include "mark.h"
#include "process.h"
#include "real.h"
#include "sockopt.h"
#include "withdrawal.h"

/*
 * A handshake that began before the filter was there ends within EMPTYING_MS. After that, empty clones stop listening.
 * If no successor has come after SUCCEEDING_MS, the clones receive again.
 */
#define EMPTYING_MS 2000
#define SUCCEEDING_MS 3000

/*
 * Attaches the filter, which then belongs to the whole group. If the application set SO_REUSEPORT itself, another
 * server's listeners may be in the group and would get nothing. False: there is no group, or the library must not
 * filter it.
 */
static bool attach_filter(const struct listener *l)
{
	struct sock_filter first[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog program = { .len = COUNT(first), .filter = first };

	return !l->own_reuseport && !l->guarded && group_is_ours(l) &&
	       !real.setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

static void detach_filter(const struct listener *l)
{
	if (!l->own_reuseport && !l->guarded)
		set_int(l->fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0);
}

static bool is_empty(const struct listener *l, int cpu)
{
	struct pollfd queue = { .fd = clone_of(l, cpu), .events = POLLIN };

	return real.poll(&queue, 1, 0) == 0;
}

/*
 * The group belongs to this server alone. The library has asked for that at the adoption, and asks again each second:
 * check_group().
 */
void program_comes(const struct listener *l)
{
	if (l->program.fd && !l->guarded && !atomic_load(&l->shared->unattended) && !is_marked_withdrawn(l->fd) &&
	    !refusal_of(l))
		balance_attach(l);
}

/*
 * This server has no worker: takes its clones' CPUs off, so that another server's listeners in the group get their
 * part. A clone that stops listening resets handshakes that are under way. So the clones go on listening for a
 * successor that has them and whose workers are about to come. A successor that blocks in accept() would not look at
 * the clones.
 */
static void leave_group(struct listener *l)
{
	bool is_succeeded = !l->blocks && is_marked_by_successor(l);

	balance_empty(l);
	for_each_clone(cpu, l) {
		clone_marks_cpu(clone_of(l, cpu), -1);
		if (!is_succeeded && atomic_load(&l->shared->seat[cpu].listening) && is_empty(l, cpu))
			clone_stop_listening(l, cpu);
	}
}

/*
 * Sends new connections to the listener: a process that accepts without epoll must not wait for connections in clones
 * that no worker looks after.
 */
void unattended_begins(struct listener *l)
{
	if (attach_filter(l))
		atomic_store(&l->shared->unattended, 1);
	else if (l->own_reuseport)
		leave_group(l);
}

void unattended_ends(const struct listener *l)
{
	if (atomic_exchange(&l->shared->unattended, 0) && !is_marked_withdrawn(l->fd))
		detach_filter(l);
	program_comes(l);
}

static bool send_all_to_first(const struct listener *l)
{
	return attach_filter(l) && mark_withdrawn(l);
}

void share_out(const struct listener *l)
{
	detach_filter(l);
	mark_as_ours(l);
}

bool any_listens(const struct listener *l)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->shared->seat[cpu].listening))
			return true;
	return false;
}

bool is_withdrawn(const struct listener *l)
{
	return atomic_load(&l->shared->withdrawn_ms) != 0;
}

void withdraw(struct listener *l)
{
	if (any_listens(l) && !is_withdrawn(l) && send_all_to_first(l))
		atomic_store(&l->shared->withdrawn_ms, now_ms());
}

/*
 * Withdraws the clones without the filter. The kernel still gives them connections by hash, until they are empty and
 * stop listening.
 */
static void withdraw_without_filter(struct listener *l)
{
	balance_empty(l);
	detach_filter(l);
	for_each_clone(cpu, l)
		clone_marks_cpu(atomic_load(&l->clone[cpu].fd), -1);
	atomic_store(&l->shared->withdrawn_ms, now_ms());
}

/* A worker that has dropped its privileges may have written any number into the shared memory. */
enum reason refusal_of(const struct listener *l)
{
	uint32_t refused = atomic_load(&l->shared->refused);

	return refused < REASONS_END ? (enum reason)refused : OPTION;
}

void refuse(struct listener *l, enum reason why)
{
	uint32_t not_yet = NO_REASON;

	if (!l->cloned && !l->sharded)
		return;
	atomic_compare_exchange_strong(&l->shared->refused, &not_yet, why);
	if (!any_listens(l) || is_withdrawn(l))
		return;
	withdraw(l);
	if (!is_withdrawn(l))
		withdraw_without_filter(l);
	worker_departs();
}

void refuse_no_longer(struct listener *l, enum reason why)
{
	uint32_t present = why;

	atomic_compare_exchange_strong(&l->shared->refused, &present, NO_REASON);
}

void wait_for_predecessor(struct listener *l)
{
	uint64_t not_yet = 0;

	if (l->origin == LISTENED || any_listens(l))
		return;
	if (is_marked_withdrawn(l->fd) || send_all_to_first(l))
		atomic_compare_exchange_strong(&l->shared->resume_ms, &not_yet, now_ms() + SUCCEEDING_MS);
}

static void close_empty_clones(struct listener *l)
{
	for_each_clone(cpu, l)
		if (atomic_load(&l->shared->seat[cpu].listening) && is_empty(l, cpu))
			clone_stop_listening(l, cpu);
}

bool withdrawal_tend(struct listener *l, uint64_t now)
{
	uint64_t resume = atomic_load(&l->shared->resume_ms);
	uint64_t withdrawn = atomic_load(&l->shared->withdrawn_ms);

	if (resume && now < resume)
		return false;
	if (resume && atomic_compare_exchange_strong(&l->shared->resume_ms, &resume, 0)) {
		share_out(l);
		program_comes(l);
		return false;
	}
	if (!withdrawn && is_marked_withdrawn(l->fd)) {
		withdrawn = now;
		atomic_store(&l->shared->withdrawn_ms, withdrawn);
		if (!is_marked_withdrawn(l->fd)) { /* a successor has taken over meanwhile */
			atomic_compare_exchange_strong(&l->shared->withdrawn_ms, &withdrawn, 0);
			return false;
		}
	}
	if (withdrawn && now - withdrawn > EMPTYING_MS)
		close_empty_clones(l);
	if (withdrawn && now - withdrawn > SUCCEEDING_MS && !refusal_of(l) && !is_marked_by_successor(l)) {
		atomic_store(&l->shared->withdrawn_ms, 0);
		share_out(l);
		program_comes(l);
		return false;
	}
	if (!withdrawn && process_is_dead(marked_process(l->fd))) {
		mark_unless_creator(l); /* so that a successor finds a process that lives */
		balance_again(l);
	}
	return withdrawn != 0;
}
