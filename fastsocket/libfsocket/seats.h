/* SPDX-License-Identifier: MIT */
/*
 * Which threads accept from a clone, and which watch a listener without a clone. Threads come, go, and die, perhaps in
 * the middle of any function. So a place that a dead thread holds counts as free.
 */
#ifndef SEATS_H
#define SEATS_H

#include "shared.h"

/* The calling thread as a number of a worker: process << 32 | thread. */
uint64_t myself(void);
bool thread_is_alive(uint64_t thread);

bool seat_is_taken(const struct seat *seat);
/* Does an adopter run, or wait for a CPU to run on? False: all sleep or are stopped, or /proc does not tell. */
bool seat_has_runner(const struct seat *seat);
/* Takes the seat for the calling thread if it is free. */
bool seat_claim(struct seat *seat);
/* Adds the calling thread to the adopters that are there. */
void seat_join(struct seat *seat);
bool seat_is_mine(const struct seat *seat);
/* Do several living workers accept from the clone? */
bool seat_is_shared(const struct seat *seat);
/* Takes a worker out of the seat: it accepts from the clone no longer. */
void seat_leave(struct seat *seat, uint64_t worker);
/* Takes all threads of this process out of the seat. Returns whether there was any. */
bool seat_leave_with_all_threads(struct seat *seat);

/*
 * waits_without_seat(): the calling thread watches a listener without a clone. waits_no_longer(): it does so no longer.
 * no_thread_waits(): no thread of this process does.
 */
void waits_without_seat(struct shared_listener *listener);
void waits_no_longer(struct shared_listener *listener);
void no_thread_waits(struct shared_listener *listener);

/* How many living workers watch a listener, with a clone or without. */
size_t workers_of(const struct shared_listener *listener);
bool has_process(const struct shared_listener *listener, pid_t pid);

#endif
