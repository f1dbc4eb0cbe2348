// SPDX-License-Identifier: MIT
#include "reasons.h"

static const char *const texts[REASONS_END] = {
	[NO_REASON] = "",
#define REASON(name, text) [name] = text,
#include "reasons.def"
#undef REASON
};

const char *reason_text(enum reason reason)
{
	return texts[reason];
}

bool is_wanted_so(enum reason reason)
{
	return reason == LISTEN_TABLE_IS_OFF || reason == OTHER_PORTS_ONLY || reason == ONE_CPU;
}
