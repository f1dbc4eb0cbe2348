/* SPDX-License-Identifier: MIT */
/* The process becomes another program, which may have its listeners. */
#ifndef SUCCESSOR_H
#define SUCCESSOR_H

#include <stdbool.h>
#include <stddef.h>

/* How many variables the new program lacks to run with the library as this one does, and adding them. */
size_t successor_lacks(char *const environment[]);
void successor_extend(char *extended[], char *const environment[]);
/* The process is about to become another program (begins), or has failed to. */
void successor_comes(bool begins);

#endif
