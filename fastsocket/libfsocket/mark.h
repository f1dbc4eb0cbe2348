/* SPDX-License-Identifier: MIT */
/*
 * Which process has the clones of a listener, for programs that get the listener later. The mark is written on the
 * listener itself, in SO_INCOMING_CPU, with a number that no packet's CPU ever equals.
 */
#ifndef MARK_H
#define MARK_H

#include "tables.h"

/* Has the library written this value of SO_INCOMING_CPU? */
bool is_mark(int incoming_cpu);
bool is_marked(int fd);
bool is_marked_withdrawn(int fd);
/* The process in the mark. */
pid_t marked_process(int fd);
/* Does the mark name a living process that is not of this server? */
bool is_marked_by_successor(const struct listener *l);
void mark_with(const struct listener *l, pid_t pid);
void mark_as_ours(const struct listener *l);
/* The same, unless the process that listened stands there and lives. */
void mark_unless_creator(const struct listener *l);
/* The same, if the process that stands there is gone: this one has the same clones. */
void mark_for_the_dead(const struct listener *l);
bool mark_withdrawn(const struct listener *l);

/* Against other processes that get to know this listener now. After some tries the caller goes on without the lock. */
void lock_listener(int fd);
void unlock_listener(int fd);

#endif
