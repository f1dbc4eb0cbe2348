/* SPDX-License-Identifier: MIT */
/*
 * Balance: a BPF program gives a new connection to another worker if the worker of its CPU is away or has a long queue.
 * Balance is off unless asked for, and works only in a server that listens with the capabilities CAP_BPF and
 * CAP_NET_ADMIN.
 *
 * The program (balance.def) is attached to the listener's reuseport group. It reads when each worker last came back to
 * its loop and how many connections wait for the worker (pulse.h). It chooses among the sockets in a map of the
 * listener: the clones, and the listener itself. When a socket stops listening, the kernel takes it out of the map. If
 * the program chooses no socket, the kernel chooses one. A socket can be in one such map only. So the program of a
 * successor gets the sockets into its map once the program before has let them go.
 * Sources: Linux net/core/sock_reuseport.c, reuseport_select_sock(); kernel/bpf/reuseport_array.c.
 *
 * withdrawal.c decides when the group has this program, and when it has the filter instead.
 */
#ifndef BALANCE_H
#define BALANCE_H

#include "tables.h"

/*
 * All functions here need the tables locked. balance_load() loads the listener's program, if the settings ask for it
 * and the process has the privileges.
 */
void balance_load(struct listener *l);
/* A clone listens now: puts the clone and the listener into the map, unless an earlier call has put them there. */
void balance_add(const struct listener *l, int cpu);
/* Attaches the program to the listener's group. The caller knows that all members of the group are this server's. */
void balance_attach(const struct listener *l);
/* The successor that had the listener has ended: this process's program is the server's again. */
void balance_again(const struct listener *l);
/* Empties the map, so that the program chooses neither a clone nor the listener any longer. */
void balance_empty(const struct listener *l);
/* Closes the program and the map, because the process does not need the listener's clones any longer. */
void balance_close(struct listener *l);
/*
 * No listener of the process has clones any more: closes the descriptor of the map of pulses. The memory stays mapped.
 */
void pulses_close(void);
/* The application has put a file of its own in the place of the program or of a map: forgets the descriptor. */
void balance_is_closed(int fd);

#endif
