/* SPDX-License-Identifier: MIT */
/* The process becomes another program (exec), which may have its listeners: what the library does before that. */
#ifndef SUCCESSOR_H
#define SUCCESSOR_H

#include <stdbool.h>
#include <stddef.h>

/*
 * How many environment variables the new program lacks to run with the library as this one does. successor_extend()
 * writes the environment and these variables to `extended`.
 */
size_t successor_lacks(char *const environment[]);
void successor_extend(char *extended[], char *const environment[]);
/*
 * With true: the process is about to become another program, and leaves its clones to that program. With false: it has
 * failed to become one, and takes that back.
 */
void successor_comes(bool begins);
/* The same for a program that a child becomes: with true before posix_spawn() makes the child, with false afterwards. */
void successor_is_spawned(bool begins);

#endif
