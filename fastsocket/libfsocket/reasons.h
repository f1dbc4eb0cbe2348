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

/* Empty for NO_REASON. */
const char *reason_text(enum reason reason);
/* It is no fault: the settings ask for it, or there is nothing to gain. */
bool is_wanted_so(enum reason reason);

#endif
