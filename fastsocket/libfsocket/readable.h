/* SPDX-License-Identifier: MIT */
#ifndef READABLE_H
#define READABLE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Can the library read this memory of the application, in words of eight bytes? size is 0 or at least 8. If it cannot,
 * the kernel refuses the application's call.
 */
bool is_readable(const void *memory, size_t size) __attribute__((access(none, 1)));

#endif
