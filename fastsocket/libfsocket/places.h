/* SPDX-License-Identifier: MIT */
#ifndef PLACES_H
#define PLACES_H

#include "shared.h"

/* A place in the shared memory for a listener; NULL: there is none. */
struct shared_listener *place_take(void);

#endif
