/* SPDX-License-Identifier: MIT */
/*
 * The libc calls that the library replaces. Each makes the application's own call first, or alone. The other files do
 * the rest.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include "common.h"
#include "real.h"
#include "settings.h"

#define INTERPOSED __attribute__((visibility("default")))
/* The real call. A replaced call knows no other way to it, so that none forgets to look it up. */
#define REAL(name) (real_calls()->name)
#pragma GCC poison real

#endif
