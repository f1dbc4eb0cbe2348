/* SPDX-License-Identifier: MIT */
/*
 * The mark tells programs that get a listener later which process has its clones. The library writes it on the listener
 * itself, in SO_INCOMING_CPU, as a number that no packet's CPU ever equals.
 */
#ifndef MARK_H
#define MARK_H

#include "tables.h"

/* Is this value of SO_INCOMING_CPU a mark of the library? */
bool is_mark(int incoming_cpu);
bool is_marked(int fd);
bool is_marked_withdrawn(int fd);
/* The process in the mark; 0: there is no mark. */
pid_t marked_process(int fd);
/* Does the mark name a living process that is not of this server? */
bool is_marked_by_successor(const struct listener *l);
void mark_with(const struct listener *l, pid_t pid);
void mark_as_ours(const struct listener *l);
/*
 * Writes this process into the mark, unless the mark names the process that listened and that process lives. A mark
 * that says `withdrawn` stays.
 */
void mark_unless_creator(const struct listener *l);
/* Writes this process into the mark if the process there is dead: this one has the same clones. */
void mark_for_the_dead(const struct listener *l);
bool mark_withdrawn(const struct listener *l);

/*
 * Locks the listener against other processes that get to know it now. After some tries the caller goes on without the
 * lock.
 */
void lock_listener(int fd);
void unlock_listener(int fd);

#endif
