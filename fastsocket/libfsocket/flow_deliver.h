/* SPDX-License-Identifier: MIT */
/*
 * Receive Flow Deliver, for active connections: connect() uses a source port that belongs to the CPU it runs on. A NIC
 * that steers by destination port brings the replies to that CPU.
 *
 * The kernel still chooses the port, but within a range of one port (IP_LOCAL_PORT_RANGE, Linux 6.3). So the kernel's
 * own rules hold: connections to different destinations share a port, TIME_WAIT is reused, and reserved ports are left
 * alone. If the port is taken, the library tries others, and after a few tries the kernel chooses among all ports.
 * Before 6.3 the kernel always chooses: the only other way, bind() with SO_REUSEADDR, shows in what the application can
 * ask of its socket, and keeps the port when the socket is disconnected.
 *
 * A socket that the application binds to port 0 gets its port at bind(), in the same way.
 */
#ifndef FLOW_DELIVER_H
#define FLOW_DELIVER_H

#include <stdbool.h>
#include <sys/socket.h>

void flow_deliver_start(void);
/* Only where settings.flow_deliver, and on descriptors that are UNKNOWN, OPENED, GUARDED or DELIVERED. */
int flow_deliver_connect(int fd, const struct sockaddr *addr, socklen_t len);
int flow_deliver_bind(int fd, const struct sockaddr *addr, socklen_t len);
/* The application shuts the socket down, which ends a connect() under way: the socket may then have any port. */
void flow_deliver_any_port(int fd);
/* Is this option a range that the library set, and that the application is not to see? */
bool flow_deliver_hides(int fd, int level, int name);
/* The application has set an option: it may have been the range. */
void flow_deliver_setsockopt(int fd, int level, int name);
/* The socket gets another name or another owner, which the library may not see. */
void flow_deliver_shared(int fd);

#endif
