/* SPDX-License-Identifier: MIT */
#ifndef TAKE_OVER_H
#define TAKE_OVER_H

#include "tables.h"

/* Become one server with the process that cloned this listener, and get its clones. */
bool take_over(struct listener *l);

#endif
