/* SPDX-License-Identifier: MIT */
#ifndef PLACES_H
#define PLACES_H

#include "shared.h"

/* Takes a place in the shared memory for a new listener. NULL: there is none left. */
struct shared_listener *place_take(void);

#endif
