/* SPDX-License-Identifier: MIT */
#ifndef GROUP_H
#define GROUP_H

#include "tables.h"

/* Has this server opened every listener of the address? */
bool group_is_ours(const struct listener *l);

#endif
