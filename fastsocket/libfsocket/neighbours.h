/* SPDX-License-Identifier: MIT */
/*
 * A clone belongs to one worker, and that worker may be stopped, busy for long, killed, have paused its listener, or
 * have run out of descriptors. The clone's connections must not wait for it. So each worker looks at the other clones
 * now and then: it is their neighbour.
 *
 * What counts is the queue, not the worker's pulse. A clone is open to every worker if its connections have waited for
 * some milliseconds, or if it has no living worker. The neighbours watch such a clone too, until its own worker accepts
 * again.
 *
 * Neighbours watch a clone without EPOLLEXCLUSIVE, even if the application asked for it. A connection causes one
 * exclusive wakeup. A neighbour's exclusive watch would take it away from the clone's own worker, which may have just
 * come back. And a neighbour that sees that worker back does not accept. Source: Linux fs/eventpoll.c,
 * ep_poll_callback(); kernel/sched/wait.c, __wake_up_common().
 */
#ifndef NEIGHBOURS_H
#define NEIGHBOURS_H

#include "tables.h"

#ifndef SLOWNESS
#define SLOWNESS 1ULL /* 100 in build/emulated: an emulated worker takes longer to come back to its loop */
#endif
/* How long connections wait in a clone before an idle neighbour accepts them. */
#define PATIENCE_MS (8 * SLOWNESS)

/*
 * May other workers accept from a clone? Yes while connections wait there and its own worker has accepted none since,
 * and if it has no living worker.
 */
bool is_neglected(const struct listener *l, int cpu);
/* Does the clone listen, though it has no living worker? */
bool is_abandoned(const struct listener *l, int cpu);
/* Does this process watch the clone because one of its own workers has adopted it, and not as a neighbour? */
bool is_own(const struct listener *l, int cpu);
/*
 * Looks at all clones but the watch's own, and watches those whose connections have waited for too long. patience: how
 * many milliseconds are too long; a little more where the clone's own worker runs. Returns whether to look again soon.
 * Needs the tables locked.
 */
bool neighbours_tend(struct listener *l, const struct watch *watch, uint64_t patience, uint64_t now);
/* Does for the clone of one CPU what neighbours_tend() does for all clones. */
bool neighbour_tend(struct listener *l, int cpu, const struct watch *watch, uint64_t patience, uint64_t now);
/* For a thread that waits for the listener with poll() or select(): does a clone hold what the thread could accept? */
bool neighbours_have_something(struct listener *l);

#endif
