/* SPDX-License-Identifier: MIT */
/*
 * The application's TCP listeners: those it made, those it inherited by exec (socket activation, binary upgrade), those
 * it received over a Unix socket, and the duplicates of all of them.
 */
#ifndef LISTENERS_H
#define LISTENERS_H

#include "tables.h"

/* False: the listener cannot be accelerated, and the user does not want the application without (FSOCKET_STRICT). */
bool listeners_listen(int fd, int backlog);
/* Identify a descriptor that was made before the library was loaded, inherited, or received; NULL: no TCP listener. */
struct listener *listeners_discover(int fd, enum origin origin);
void listeners_inherit(void);
void listeners_duplicated(int from, int to);
/* With the tables locked: one descriptor of a listener is closed. */
void listeners_close(int fd);

#endif
