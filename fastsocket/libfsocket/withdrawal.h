/* SPDX-License-Identifier: MIT */
/*
 * A listener that goes to another program loses no connection on the way.
 *
 * It goes over a Unix socket (HAProxy's seamless reload) or by exec (nginx's binary upgrade, workers that are started
 * as programs). Both programs then have the application's listener, but only the old one has its clones, and when the
 * old one ends, the kernel would reset what waits in the clones. So the new program gets the clones (take_over.c).
 *
 * A program that passes a listener on cannot know whether the other side takes the clones over. So the clones are
 * withdrawn first: a classic BPF program on the reuseport group sends every new connection to its first member, which
 * is the application's listener, while the old program still accepts what its clones hold. The program that takes over
 * takes the filter away. Source: Linux net/core/sock_reuseport.c, reuseport_select_sock().
 */
#ifndef WITHDRAWAL_H
#define WITHDRAWAL_H

#include "tables.h"

/* The listener has just been passed on. */
void withdraw(struct listener *l);
bool is_withdrawn(const struct listener *l);
/* The clones are this server's: take the filter away, and mark the listener. */
void share_out(const struct listener *l);
/*
 * For a listener that came from another program: new connections go to the listener itself for three seconds, so that
 * the other program empties its clones first.
 */
void wait_for_predecessor(struct listener *l);
/* Now and then. Returns whether the clones are withdrawn: no worker is to adopt one. */
bool withdrawal_tend(struct listener *l, uint64_t now);

/* The group gets the program of balance.h, unless it has the filter or the clones are not to be used. */
void program_comes(const struct listener *l);

/* The last worker has left the clones, or a worker has come again. */
void unattended_begins(struct listener *l);
void unattended_ends(const struct listener *l);

/* Why no worker of the server is to have a clone any more, or NO_REASON. */
enum reason refusal_of(const struct listener *l);
void refuse(struct listener *l, enum reason why);
void refuse_no_longer(struct listener *l, enum reason why);

#endif
