// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "real.h"

struct real_calls real;

static const struct {
	const char *name;
	size_t offset;
} calls[] = {
#define CALL(type, name, parameters) { #name, offsetof(struct real_calls, name) },
#include "calls.def"
#undef CALL
};
_Static_assert(offsetof(struct real_calls, close) == 0, "close() comes first: find_real_calls() finds it last");

/*
 * Looks up all calls, from the last to the first: once close() is there, all are. A pointer is copied as bytes, because
 * dlsym() returns functions as object pointers, and ISO C has no cast for that.
 */
void find_real_calls(void)
{
	for (size_t i = COUNT(calls); i-- > 0;) {
		void *symbol = dlsym(RTLD_NEXT, calls[i].name);

		memcpy((char *)&real + calls[i].offset, &symbol, sizeof(symbol));
	}
}
