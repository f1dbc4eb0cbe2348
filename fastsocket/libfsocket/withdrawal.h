/* SPDX-License-Identifier: MIT */
/*
 * A listener that goes to another program loses no connection on the way.
 *
 * A listener goes over a Unix socket (HAProxy's seamless reload) or by exec (nginx's binary upgrade, workers that are
 * started as programs). Both programs then have the application's listener, but only the old one has its clones. When
 * the old one ends, the kernel would reset what waits in the clones. So the new program gets the clones (take_over.c).
 *
 * A program that passes a listener on cannot know whether the other side takes the clones over. So it withdraws the
 * clones first: a classic BPF program on the reuseport group, the filter, sends every new connection to the first
 * member of the group, which is the application's listener. The old program still accepts what its clones hold. The
 * program that takes the clones over takes the filter away. Source: Linux net/core/sock_reuseport.c,
 * reuseport_select_sock().
 */
#ifndef WITHDRAWAL_H
#define WITHDRAWAL_H

#include "tables.h"

/* Does any clone of the listener listen? Then connections may wait in it. */
bool any_listens(const struct listener *l);
/* Withdraws the clones of a listener that has just been passed on. */
void withdraw(struct listener *l);
bool is_withdrawn(const struct listener *l);
/* The clones are this server's, and receive connections: takes the filter away, and marks the listener. */
void share_out(const struct listener *l);
/*
 * For a listener that came from another program: new connections go to the listener itself for three seconds, so that
 * the other program empties its clones first. Does nothing if a clone listens already.
 */
void wait_for_predecessor(struct listener *l);
/*
 * Workers call this now and then, and it brings a withdrawal to its end. Returns whether the clones are withdrawn: then
 * no worker may adopt one.
 */
bool withdrawal_tend(struct listener *l, uint64_t now);

/* Gives the group the program of balance.h, unless it has the filter or the clones are not to be used. */
void program_comes(const struct listener *l);

/*
 * unattended_begins(): the last worker has left the clones, so new connections go to the listener. unattended_ends(): a
 * worker has come again, so they go to the clones.
 */
void unattended_begins(struct listener *l);
void unattended_ends(const struct listener *l);

/*
 * refusal_of() tells why no worker of the server may have a clone any more, or NO_REASON. refuse() begins such a
 * refusal, and withdraws the clones. refuse_no_longer() ends the refusal for that reason.
 */
enum reason refusal_of(const struct listener *l);
void refuse(struct listener *l, enum reason why);
void refuse_no_longer(struct listener *l, enum reason why);

#endif
