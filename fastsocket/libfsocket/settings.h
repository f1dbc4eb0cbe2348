/* SPDX-License-Identifier: MIT */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_ONLY_PORTS 16
#define MAX_SETTINGS_VARIABLES 13

struct settings {
	bool enabled; /* any of the parts that follow is on, but for Balance, which is a part of the listen table */
	bool listen_table;
	bool balance; /* on only if the listen table is */
	bool fast_epoll;
	bool flow_deliver;
	bool answer_with_fin;
	bool delayed_ack;
	bool defer_accept;
	bool follows_connections; /* any of answer_with_fin, delayed_ack and defer_accept is on */
	enum { PIN_WHERE_FREE, PIN_ALWAYS, PIN_NEVER } pin;
	bool strict;
	bool verbose;
	size_t only_ports;
	uint16_t only_port[MAX_ONLY_PORTS];
};
extern struct settings settings;
/* LD_PRELOAD and the variables of the settings as they were when the program started: NAME=value; NULL where unset. */
extern char *settings_assignments[MAX_SETTINGS_VARIABLES];
void read_settings(void);
/* Turns Receive Flow Deliver off: it has nothing to do on this machine. */
void turn_flow_deliver_off(void);

#endif
