/* SPDX-License-Identifier: MIT */
/*
 * The application's TCP listeners: those it made, those it inherited by exec (socket activation, binary upgrade), those
 * it received over a Unix socket, and the duplicates of all of them.
 */
#ifndef LISTENERS_H
#define LISTENERS_H

#include "tables.h"

/*
 * The application has called listen() on this socket: makes clones, or gives existing clones the new backlog. False:
 * the listener cannot be accelerated, and the user wants no listener without acceleration (FSOCKET_STRICT).
 */
bool listeners_listen(int fd, int backlog);
/*
 * Finds out whether a descriptor is a listener that was made before the library was loaded, inherited or received, and
 * gets to know it. NULL: it is no TCP listener, or cannot be known.
 */
struct listener *listeners_discover(int fd, enum origin origin);
void listeners_inherit(void);
void listeners_duplicated(int from, int to);
/* One descriptor of a listener is closed. Needs the tables locked. */
void listeners_close(int fd);

#endif
