/* SPDX-License-Identifier: MIT */
#ifndef INCOMING_CPU_H
#define INCOMING_CPU_H

#include <stdbool.h>

/*
 * Does this kernel honour SO_INCOMING_CPU inside a reuseport group? Linux 4.6 to 6.1 do not, unless a distribution has
 * backported commit b261eda84ec1. False with errno set: the library could not try it.
 */
bool kernel_honours_incoming_cpu(void);

#endif
