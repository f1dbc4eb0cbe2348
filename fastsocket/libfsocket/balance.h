/* SPDX-License-Identifier: MIT */
/*
 * A program of the kernel that gives a connection to another worker where the one of its CPU is away or has a long
 * queue: off unless asked for, and only for a server that listens with the capabilities CAP_BPF and CAP_NET_ADMIN.
 *
 * The program (balance.def) belongs to the listener's reuseport group. It reads when each worker last came back to its
 * loop and how many connections wait for it (pulse.h), and chooses among the sockets that are in a map of the listener:
 * the clones, and the listener itself. The kernel takes a socket out of the map when it stops listening, and chooses by
 * itself where the program chooses none. A map can hold a socket only if no other map does. So a successor's map gets
 * these sockets once the program before has let them go.
 * Sources: Linux net/core/sock_reuseport.c, reuseport_select_sock(); kernel/bpf/reuseport_array.c.
 *
 * When the group has the program, and when the filter, withdrawal.c decides.
 */
#ifndef BALANCE_H
#define BALANCE_H

#include "tables.h"

/* With the tables locked. Load the program of a listener if it is asked for and the process may. */
void balance_load(struct listener *l);
/* A clone listens. The map gets the clone and the listener, unless an earlier call has put them there. */
void balance_add(const struct listener *l, int cpu);
/* Give the group the program. Call it only for a group that is this server's. */
void balance_attach(const struct listener *l);
/* The successor that had the listener has ended: this process's program is the server's again. */
void balance_again(const struct listener *l);
/* The program is to choose neither a clone nor the listener any longer. */
void balance_empty(const struct listener *l);
/* The process needs the listener's clones no longer. */
void balance_close(struct listener *l);
/* No listener of the process has clones any more: close the descriptor of the pulses. The mapping stays. */
void pulses_close(void);
/* The application has put a file of its own in the place of the program or of a map. */
void balance_is_closed(int fd);

#endif
