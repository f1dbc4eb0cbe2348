/* SPDX-License-Identifier: MIT */
/*
 * Local Listen Table: which worker accepts from which clone.
 *
 * epoll_ctl()   the library notes that an epoll has a listener.
 * epoll_wait()  the thread that waits for such an epoll adopts the clone of its CPU: the clone listens from then on,
 *               and the epoll gets it too. The kernel gives the clone the connections whose SYN that CPU handled.
 *
 * A thread adopts only when it waits, because a clone that receives has to be looked after, and a thread that waits in
 * the library can be woken for that. Where the application itself opened several SO_REUSEPORT listeners on an address,
 * these are the local listeners: the library writes the worker's CPU on the one that it watches, and makes no clones.
 * Sources: socket(7), SO_INCOMING_CPU; Linux b261eda84ec1 (SO_INCOMING_CPU in reuseport groups).
 */
#ifndef ADOPT_H
#define ADOPT_H

#include "tables.h"

/* After this many accepts from its clone a worker tries the application's listener, which a busy clone would starve. */
#define ACCEPTS_PER_GLOBAL_TURN 32

struct adoption {
	uint32_t generation;
	int cpu;
	unsigned int until_global_turn;
};
extern __thread struct adoption adoptions[MAX_LISTENERS] INITIAL_EXEC;

/* What the calling thread has adopted of this listener, or NULL. */
static inline struct adoption *adoption_of(const struct listener *l)
{
	struct adoption *mine = &adoptions[l - listeners];

	return mine->generation == l->generation ? mine : NULL;
}

void adoption_forget(const struct listener *l);
/* The process is a copy of the one that adopted. */
void adoptions_forget(void);

/* All of these want the tables locked. The calling thread adopts a clone, or says why not. */
void adopt(struct listener *l, struct watch *watch);
/* The worker is pinned now, or was moved to another CPU, or may be pinned now. */
void reconsider(struct listener *l, struct watch *watch);
/*
 * The thread of this watch, perhaps not the calling one, stops serving its CPU. Its neighbours look after the clone
 * until another worker adopts it.
 */
void give_up(struct listener *l, struct watch *watch);
/* No thread of this process accepts any longer. */
void adopters_leave(struct listener *l);
/* A descriptor that was a clone's is another file's, or about to become one's. */
void clone_is_closed(int fd);

#endif
