/* SPDX-License-Identifier: MIT */
#ifndef REASONS_H
#define REASONS_H

#include <stdbool.h>

enum reason {
	NO_REASON, /* it is accelerated */
#define REASON(name, text) name,
#include "reasons.def"
#undef REASON
	REASONS_END,
};

/* The text of a reason; empty for NO_REASON. */
const char *reason_text(enum reason reason);
/* Is this reason no fault? Then the settings ask for it, or there is nothing to gain. */
bool is_wanted_so(enum reason reason);

#endif
