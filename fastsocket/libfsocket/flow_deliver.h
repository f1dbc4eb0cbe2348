/* SPDX-License-Identifier: MIT */
/*
 * Receive Flow Deliver, for active connections: connect() uses a source port that belongs to the CPU on which it runs.
 * A NIC that steers by destination port brings the replies to that CPU.
 *
 * The kernel still chooses the port, but within a range of one port (IP_LOCAL_PORT_RANGE, Linux 6.3). So the kernel's
 * own rules hold: connections to different destinations share a port, TIME_WAIT is reused, and reserved ports are left
 * alone. If the port is taken, the library tries others. After a few tries the kernel chooses among all ports. Before
 * Linux 6.3 the kernel always chooses. The only other way is bind() with SO_REUSEADDR: the application could see that
 * on its socket, and the socket would keep the port when it is disconnected.
 *
 * If the application binds a socket to port 0, the socket gets its port at bind(), in the same way.
 */
#ifndef FLOW_DELIVER_H
#define FLOW_DELIVER_H

#include <stdbool.h>
#include <sys/socket.h>

void flow_deliver_start(void);
/*
 * Call these two only if settings.flow_deliver is on, and on descriptors that are UNKNOWN, OPENED, GUARDED or
 * DELIVERED. They make the application's connect() or bind(), and return its result.
 */
int flow_deliver_connect(int fd, const struct sockaddr *addr, socklen_t len);
int flow_deliver_bind(int fd, const struct sockaddr *addr, socklen_t len);
/* The application shuts the socket down, which ends a connect() under way: the socket may have any port again. */
void flow_deliver_any_port(int fd);
/* Is this option a port range that the library set on the socket? The application is not to see it. */
bool flow_deliver_hides(int fd, int level, int name);
/* The application has set an option. If it was the port range, the library no longer takes the range for its own. */
void flow_deliver_setsockopt(int fd, int level, int name);
/* The socket gets another descriptor or another owner, which the library may not see: takes its own port range off. */
void flow_deliver_shared(int fd);

#endif
