/* SPDX-License-Identifier: MIT */
/* The application closes a descriptor, by close() or otherwise: let go of what the library knows of it. */
#ifndef CLOSING_H
#define CLOSING_H

#include "common.h"
#include "descriptors.h"

/* The application has closed it by dup2(), or its number has got a new meaning. */
void known_descriptor_closing(int fd);
/* close_range(), but without the library's own descriptors that are still needed. */
int descriptors_close(unsigned int first, unsigned int last, int flags);
/* The application is about to close it. False: it is the library's own, and stays open. */
bool known_descriptor_closes(int fd);
/* False: another process has given the number its new meaning, so this process's tables stay. */
bool descriptor_is_replaced(int fd);

static inline void descriptor_closing(int fd)
{
	if (descriptor(fd) != UNKNOWN && (unsigned int)fd < MAX_FDS)
		known_descriptor_closing(fd);
}

static inline bool descriptor_closes(int fd)
{
	return likely(descriptor(fd) == UNKNOWN) || (unsigned int)fd >= MAX_FDS || known_descriptor_closes(fd);
}

/* A call has just returned this descriptor. */
static inline void new_descriptor(int fd, enum descriptor kind)
{
	if (likely(is_free_to_change(descriptor(fd))) || descriptor_is_replaced(fd))
		set_descriptor(fd, kind);
}

#endif
