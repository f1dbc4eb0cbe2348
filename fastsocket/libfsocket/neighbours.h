/* SPDX-License-Identifier: MIT */
/*
 * A clone belongs to one worker, and that worker may be stopped, busy for long, killed, have paused its listener, or
 * have run out of descriptors. The clone's connections must not wait for it. So each worker looks at the other clones
 * now and then.
 *
 * What counts is the queue, not the worker's pulse. A clone is open to every worker if its connections have waited for
 * some milliseconds, or if it has no living worker. The neighbours watch it too, until its own worker accepts again.
 *
 * They watch without EPOLLEXCLUSIVE, even if the application asked for it. Such a watch would take the one wakeup that
 * a connection gives away from the owner, which may have just come back, and a neighbour that sees the owner does not
 * accept. Source: Linux fs/eventpoll.c, ep_poll_callback(); kernel/sched/wait.c, __wake_up_common().
 */
#ifndef NEIGHBOURS_H
#define NEIGHBOURS_H

#include "tables.h"

#ifndef SLOWNESS
#define SLOWNESS 1ULL /* 100 in build/emulated: an emulated worker takes longer to come back to its loop */
#endif
/* How long an idle worker waits for a neighbour. */
#define PATIENCE_MS (8 * SLOWNESS)

/* May other workers accept from a clone? Yes while connections wait and its own worker has accepted none since. */
bool is_neglected(const struct listener *l, int cpu);
/* Does this process watch the clone as its own worker's? */
bool is_own(const struct listener *l, int cpu);
/*
 * With the tables locked. A connection that has waited for so many milliseconds, and for a little longer where its own
 * worker runs, has waited too long. Returns whether to look again soon.
 */
bool neighbours_tend(struct listener *l, const struct watch *watch, uint64_t patience, uint64_t now);
/* The same, for the clone of one CPU. */
bool neighbour_tend(struct listener *l, int cpu, const struct watch *watch, uint64_t patience, uint64_t now);
/* For a thread that waits for the listener with poll() or select(): does a clone hold what the thread could accept? */
bool neighbours_have_something(struct listener *l);

#endif
