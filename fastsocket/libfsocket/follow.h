/* SPDX-License-Identifier: MIT */
/* What the application does to its listener, the clones follow. */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "tables.h"

/* The flags of a listener's descriptor: may accept() block, and does the kernel send signals? */
void note_flags(struct listener *l, int fd);
/* The application may have changed them. With the tables locked. */
void flags_changed(int fd);
/* The same, without. */
void listener_flags_change(int fd);
/* listen() again: a new backlog, or the end of a pause that shutdown() began. With the tables locked. */
void clones_listen_again(const struct listener *l, int backlog);
/* How many connections wait in the clones. For a listener the kernel tells that in tcpi_unacked: tcp_get_info(). */
uint32_t clones_queue(const struct listener *l);
void clones_shutdown(struct listener *l, int how);
/* connect() to AF_UNSPEC has ended the listener, or it is a client now: its epoll must report nothing of the clones. */
void clones_end(struct listener *l);
void clones_setsockopt(struct listener *l, int level, int name, const void *value, socklen_t size);

#endif
