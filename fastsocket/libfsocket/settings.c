// SPDX-License-Identifier: MIT
/*
 * What the environment asks for. It is read once, when the library is loaded, because the application may change it
 * later.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "log.h"
#include "settings.h"

struct settings settings;

static const char *const names[MAX_SETTINGS_VARIABLES] = {
	"LD_PRELOAD",           "FSOCKET",
	"FSOCKET_LISTEN_TABLE", "FSOCKET_FAST_EPOLL",
	"FSOCKET_ONLY",         "FSOCKET_PIN",
	"FSOCKET_STRICT",       "FSOCKET_VERBOSE",
	"FSOCKET_FLOW_DELIVER", "FSOCKET_ANSWER_WITH_FIN",
	"FSOCKET_DELAYED_ACK",  "FSOCKET_DEFER_ACCEPT",
	"FSOCKET_BALANCE",
};

char *settings_assignments[MAX_SETTINGS_VARIABLES];

static void remember(size_t i)
{
	const char *value = getenv(names[i]);

	if (value && asprintf(&settings_assignments[i], "%s=%s", names[i], value) < 0)
		settings_assignments[i] = NULL;
}

static const char *value_of(const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < COUNT(names); i++)
		if (settings_assignments[i] && strcmp(names[i], name) == 0)
			return settings_assignments[i] + length + 1;
	return NULL;
}

/* A value that is neither on nor off is reported, and counts as unset. */
static bool is_on(const char *name, bool otherwise)
{
	const char *value = value_of(name);

	if (!value || !*value)
		return otherwise;
	if (strcmp(value, "on") == 0 || strcmp(value, "1") == 0)
		return true;
	if (strcmp(value, "off") == 0 || strcmp(value, "0") == 0)
		return false;
	fsocket_log("%s=%s is neither on nor off; taken as %s", name, value, otherwise ? "on" : "off");
	return otherwise;
}

static void read_only_ports(const char *list)
{
	while (*list) {
		char *end;
		unsigned long port = strtoul(list, &end, 10);

		if (end == list || port == 0 || port > UINT16_MAX || (*end && *end != ',') ||
		    settings.only_ports == MAX_ONLY_PORTS) {
			fsocket_log(
				"FSOCKET_ONLY: no list of up to %d ports from '%s' on; no other port is accelerated",
				MAX_ONLY_PORTS, list);
			break;
		}
		settings.only_port[settings.only_ports++] = (uint16_t)port;
		list = *end ? end + 1 : end;
	}
}

static void read_pin(const char *value)
{
	if (!value || !*value)
		settings.pin = PIN_WHERE_FREE;
	else if (strcmp(value, "never") == 0)
		settings.pin = PIN_NEVER;
	else if (strcmp(value, "always") == 0)
		settings.pin = PIN_ALWAYS;
	else
		fsocket_log("FSOCKET_PIN=%s is neither always nor never; taken as not given", value);
}

static void note_whether_enabled(void)
{
	settings.follows_connections = settings.answer_with_fin || settings.delayed_ack || settings.defer_accept;
	settings.enabled =
		settings.listen_table || settings.fast_epoll || settings.flow_deliver || settings.follows_connections;
}

void read_settings(void)
{
	bool all;

	for (size_t i = 0; i < COUNT(names); i++)
		remember(i);
	all = is_on("FSOCKET", true);
	settings.listen_table = all && is_on("FSOCKET_LISTEN_TABLE", true);
	settings.balance = settings.listen_table && is_on("FSOCKET_BALANCE", false);
	settings.fast_epoll = all && is_on("FSOCKET_FAST_EPOLL", false);
	settings.flow_deliver = all && is_on("FSOCKET_FLOW_DELIVER", false);
	settings.answer_with_fin = all && is_on("FSOCKET_ANSWER_WITH_FIN", false);
	settings.delayed_ack = all && is_on("FSOCKET_DELAYED_ACK", false);
	settings.defer_accept = all && is_on("FSOCKET_DEFER_ACCEPT", false);
	note_whether_enabled();
	read_pin(value_of("FSOCKET_PIN"));
	settings.strict = is_on("FSOCKET_STRICT", false);
	settings.verbose = is_on("FSOCKET_VERBOSE", false);
	if (value_of("FSOCKET_ONLY"))
		read_only_ports(value_of("FSOCKET_ONLY"));
}

void turn_flow_deliver_off(void)
{
	settings.flow_deliver = false;
	note_whether_enabled();
}
