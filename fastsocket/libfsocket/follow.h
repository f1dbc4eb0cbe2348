/* SPDX-License-Identifier: MIT */
/* What the application does to its listener, the library does to the clones. */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "tables.h"

/* Notes the flags of a descriptor of the listener: may accept() block, and does the kernel send signals (O_ASYNC)? */
void note_flags(struct listener *l, int fd);
/* The application may have changed the flags of this descriptor. Needs the tables locked. */
void flags_changed(int fd);
/* Does what flags_changed() does, and locks the tables itself. */
void listener_flags_change(int fd);
/*
 * The application has called listen() again, for a new backlog or to end a pause that shutdown() began: so do the
 * clones that listen. Needs the tables locked.
 */
void clones_listen_again(const struct listener *l, int backlog);
/* How many connections wait in the clones. For a listener the kernel tells that in tcpi_unacked: tcp_get_info(). */
uint32_t clones_queue(const struct listener *l);
void clones_shutdown(struct listener *l, int how);
/*
 * connect() to AF_UNSPEC has ended the listener, or the listener is a client now. Stops the clones, so that the epolls
 * of the application report nothing of them.
 */
void clones_end(struct listener *l);
void clones_setsockopt(struct listener *l, int level, int name, const void *value, socklen_t size);

#endif
