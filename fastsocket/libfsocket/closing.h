/* SPDX-License-Identifier: MIT */
/* The application closes a descriptor, by close() or otherwise: let go of what the library knows of it. */
#ifndef CLOSING_H
#define CLOSING_H

#include "common.h"
#include "descriptors.h"

/* The application is about to close these, or has just closed them by dup2(). */
void descriptors_closing(unsigned int first, unsigned int last);
void known_descriptor_closing(int fd);
/* False: another process has given the number its new meaning, so this process's tables stay. */
bool descriptor_is_replaced(int fd);

static inline void descriptor_closing(int fd)
{
	if (descriptor(fd) != UNKNOWN && (unsigned int)fd < MAX_FDS)
		known_descriptor_closing(fd);
}

/* A call has just returned this descriptor. */
static inline void new_descriptor(int fd, enum descriptor kind)
{
	if (likely(is_free_to_change(descriptor(fd))) || descriptor_is_replaced(fd))
		set_descriptor(fd, kind);
}

#endif
