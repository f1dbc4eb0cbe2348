/* SPDX-License-Identifier: MIT */
/* The application closes a descriptor, by close() or otherwise: the library forgets what it knows of the descriptor. */
#ifndef CLOSING_H
#define CLOSING_H

#include "common.h"
#include "descriptors.h"

/* Forgets a descriptor: the application has closed it by dup2(), or its number has got a new meaning. */
void known_descriptor_closing(int fd);
/* Does the work of close_range(), but leaves the library's own descriptors open that are still needed. */
int descriptors_close(unsigned int first, unsigned int last, int flags);
/* The application is about to close a descriptor: forgets it. False: it is the library's own, and stays open. */
bool known_descriptor_closes(int fd);
/*
 * A number that the library knows has got a new meaning: forgets the old one. False: the tables are another process's,
 * or the calling thread has a descriptor table of its own. Then they stay as they are.
 */
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

/* A call has just returned this descriptor: notes its kind. */
static inline void new_descriptor(int fd, enum descriptor kind)
{
	if (likely(is_free_to_change(descriptor(fd))) || descriptor_is_replaced(fd))
		set_descriptor(fd, kind);
}

#endif
