/* SPDX-License-Identifier: MIT */
/*
 * Which threads accept from a clone, and which watch a listener without a clone. They come, go, and die, perhaps in the
 * middle of any function: a place that a dead thread holds is free.
 */
#ifndef SEATS_H
#define SEATS_H

#include "shared.h"

/* The calling thread, as an adopter. */
uint64_t myself(void);
bool thread_is_alive(uint64_t thread);

bool seat_is_taken(const struct seat *seat);
/* Does an adopter run, or wait for a CPU to run on? False: all sleep or are stopped, or /proc does not tell. */
bool seat_has_runner(const struct seat *seat);
/* Takes the seat for the calling thread if it is free. */
bool seat_claim(struct seat *seat);
/* Joins the adopters that are there. */
void seat_join(struct seat *seat);
bool seat_is_mine(const struct seat *seat);
/* This worker accepts from the clone no longer. */
void seat_leave(struct seat *seat, uint64_t worker);
/* No thread of the process does. Returns whether one did. */
bool seat_leave_with_all_threads(struct seat *seat);

/* The calling thread watches a listener without a clone, or does so no longer. */
void waits_without_seat(struct shared_listener *listener);
void waits_no_longer(struct shared_listener *listener);
void no_thread_waits(struct shared_listener *listener);

/* Living workers that watch a listener, with a clone or without. */
size_t workers_of(const struct shared_listener *listener);
bool has_process(const struct shared_listener *listener, pid_t pid);

#endif
