/* SPDX-License-Identifier: MIT */
#ifndef TAKE_OVER_H
#define TAKE_OVER_H

#include "tables.h"

/*
 * Makes this process one server with the process that cloned this listener, and gets all its clones. False: it could
 * not.
 */
bool take_over(struct listener *l);

#endif
