/* SPDX-License-Identifier: MIT */
/*
 * Local Listen Table: which worker accepts from which clone.
 *
 * epoll_ctl()   The library notes into which epoll the application puts its listener.
 * epoll_wait()  The thread that waits for such an epoll adopts the clone of its CPU: the clone listens from then on,
 *               and the library puts it into the epoll too. The kernel gives the clone the connections whose SYN that
 *               CPU handled.
 *
 * A thread adopts a clone only when it waits. A clone that receives connections has to be looked after, and a thread
 * that waits inside the library can be woken for that. If the application itself opened several SO_REUSEPORT listeners
 * on an address, the library makes no clones there: it writes the worker's CPU on the listener that the worker watches.
 * Sources: socket(7), SO_INCOMING_CPU; Linux b261eda84ec1 (SO_INCOMING_CPU in reuseport groups).
 */
#ifndef ADOPT_H
#define ADOPT_H

#include "tables.h"

/*
 * A worker that has a clone tries it before the application's listener. Once in this many accept() calls it tries the
 * listener first, which a busy clone would otherwise starve.
 */
#define ACCEPTS_PER_GLOBAL_TURN 32

struct adoption { /* small, because libc takes it from each thread's stack */
	uint32_t generation;
	uint32_t cpu : 10;
	uint32_t until_global_turn : 6;
	uint32_t tenure : 16; /* of the clone (tables.h) when the thread adopted */
};
_Static_assert(CPU_SETSIZE <= 1 << 10 && ACCEPTS_PER_GLOBAL_TURN < 1 << 6, "fields of struct adoption");
extern __thread struct adoption adoptions[MAX_LISTENERS] INITIAL_EXEC;

/* What the calling thread has adopted of this listener; NULL if it has adopted nothing. */
static inline struct adoption *adoption_of(const struct listener *l)
{
	struct adoption *mine = &adoptions[l - listeners];

	return mine->generation == l->generation ? mine : NULL;
}

void adoption_forget(const struct listener *l);
/*
 * Forgets what the calling thread has adopted. For a child process: its parent's thread has adopted that, not its own.
 */
void adoptions_forget(void);

/*
 * All functions from here on need the tables locked. adopt(): the calling thread adopts a clone, or falls back to the
 * application's listener and notes why.
 */
void adopt(struct listener *l, struct watch *watch);
/*
 * Checks whether the calling thread should adopt another clone, or its first one. It should if it was pinned or moved
 * to another CPU, or if the library may pin it now.
 */
void reconsider(struct listener *l, struct watch *watch);
/*
 * Makes the thread of this watch stop serving its CPU. It may be another thread than the calling one. The neighbours
 * look after the clone until another worker adopts it.
 */
void give_up(struct listener *l, struct watch *watch);
/* Does any thread of the server, in this process or another one, accept from a clone of the listener? */
bool has_adopter(const struct listener *l);
/* Ends the library's pin of the calling thread, unless the thread has adopted a clone. */
void unpin_unless_adopting(void);
/* Makes all threads of this process leave the listener's clones, and closes the process's descriptors of them. */
void adopters_leave(struct listener *l);
/*
 * Forgets the clone that has this descriptor: the number is another file's now, or is about to become another file's.
 */
void clone_is_closed(int fd);

#endif
