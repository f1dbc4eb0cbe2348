/* SPDX-License-Identifier: MIT */
#ifndef GROUP_H
#define GROUP_H

#include "tables.h"

/* One worker of the server asks group_is_ours() again after this time. */
#define GROUP_CHECK_EVERY_MS 1000

/* Has this server opened every listener on the address of this one? Asks the kernel. */
bool group_is_ours(const struct listener *l);

#endif
