/* SPDX-License-Identifier: MIT */
/*
 * The files preload*.c define the libc calls that the library replaces. Each makes the application's own call. The
 * other files do the rest.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include "common.h"
#include "real.h"
#include "settings.h"

#define INTERPOSED __attribute__((visibility("default")))
/* libc's own function. The pragma forbids any other way to it, so that no replaced call forgets to look it up. */
#define REAL(name) (real_calls()->name)
#pragma GCC poison real

#endif
