/* SPDX-License-Identifier: MIT */
/*
 * A clone has to be equal to its listener, because accepted connections inherit all that is set on the socket they come
 * from. The kernel is asked for every option of both sockets, by number, so that options of future kernels are compared
 * too. The library sets on the clone what differs, and compares all again. Sources: socket(7), ip(7), ipv6(7), tcp(7);
 * Linux net/core/sock.c, sk_getsockopt().
 *
 * Some options can be set and not be read: TCP_MD5SIG, SO_ATTACH_BPF, IP_XFRM_POLICY and others. A listener on which
 * the application set one of these gets no clones.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>

/* Gives a socket the options of another one, as far as possible. */
void options_copy(int from, int to);
/*
 * Gives a socket the options of another one. Returns whether all options are equal then: never if `from` has a filter.
 */
bool options_make_equal(int from, int to);
/* Gives a socket one option of another one. Returns whether it is equal then: never if `from` has a filter. */
bool option_follows(int from, int to, int level, int name);
/* Can a clone get an option that the application has just set? */
bool option_can_be_copied(int fd, int level, int name);

#endif
