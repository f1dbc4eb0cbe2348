/* SPDX-License-Identifier: MIT */
#ifndef GROUP_H
#define GROUP_H

#include "tables.h"

/* A worker of the server asks this often. */
#define GROUP_CHECK_EVERY_MS 1000

/* Has this server opened every listener of the address? */
bool group_is_ours(const struct listener *l);

#endif
