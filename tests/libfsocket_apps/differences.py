"""Where libfsocket.so is known to answer otherwise: steps that a program leaves out when it is told to.

Each predicate gets the program, the operation and its arguments, before the step. It asks for what is the same with
the library and without, so that both leave out the same.
"""

import select
import socket

from descriptors import has_unread_data
from libc import option_of

WAITING = ("epoll_wait", "epoll_pwait")


def connects_behind_older_connections(program, operation, *arguments) -> bool:
    """What waited for the listener before its clone was adopted is accepted after what comes to the clone."""
    return (operation == "client" and program.has_older_connections(arguments[0])) or (
        operation == "connect" and program.has_older_connections(arguments[1])
    )


def binds_beside_a_listener(program, operation, *arguments) -> bool:
    """A socket with SO_REUSEPORT may share the port of a listener that has got it from the library; so may a connection
    that has inherited it, once it is disconnected and bound again.
    """
    return (
        operation == "bind_like" and (program.would_share_a_port(*arguments) or program.was_accepted(arguments[0]))
    ) or (operation == "listen" and program.would_share_a_port(arguments[0], arguments[0]))


def blocks_where_it_watches(program, operation, *arguments) -> bool:
    """A worker adopts no clone of a listener that blocks, though others have, and does not see what waits there."""
    return operation == "set_nonblocking" and not arguments[1] and program.is_watched(arguments[0])


def shuts_down_what_does_not_listen(program, operation, *arguments) -> bool:
    """What a paused listener accepts later inherits a second shutdown, but not through a clone."""
    return operation == "shutdown" and program.is_paused(arguments[0])


def pauses_an_unnamed_port(program, operation, *arguments) -> bool:
    """shutdown() or connect() that ends a listener gives a port back that the kernel chose; its clones keep it."""
    return (
        (operation == "disconnect" or (operation == "shutdown" and arguments[1] != socket.SHUT_WR))
        and program.is_listener(arguments[0])
        and not program.is_named(arguments[0])
    )


def watches_an_ended_listener(program, operation, *arguments) -> bool:
    """A listener ends, an epoll gets it, and it listens again: the epoll is not told of a clone's connections."""
    return operation == "epoll_ctl" and arguments[0] == "ADD" and program.is_paused(arguments[2])


def resumes_without_reuseaddr(program, operation, *arguments) -> bool:
    """Connections keep listen() after shutdown() from having the port again, but not where it has SO_REUSEPORT."""
    return (
        operation == "listen"
        and program.is_paused(arguments[0])
        and option_of(arguments[0], socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    )


def reads_reuseport_of_a_connection(program, operation, *arguments) -> bool:
    """A connection inherits the SO_REUSEPORT that the library set on its listener."""
    return (
        operation == "get_option"
        and arguments[1:] == (socket.SOL_SOCKET, socket.SO_REUSEPORT)
        and not program.is_listener(arguments[0])
    )


def closes_it_on_its_way(program, operation, *arguments) -> bool:
    """A listener whose last descriptor is closed while another one is on its way over a Unix socket loses its clones,
    and what waits there is reset.
    """
    return operation == "pass_on" and arguments[1] and program.is_listener(arguments[0])


def closes_an_epoll_on_its_way(program, operation, *arguments) -> bool:
    """An epoll whose last descriptor is closed while another one is on its way over a Unix socket loses its clone."""
    return operation == "pass_on" and arguments[1] and program.is_epoll(arguments[0])


def has_a_table_of_its_own(program, operation, *arguments) -> bool:
    """A thread with a descriptor table of its own is left to libc, and accepts from no clone."""
    return operation == "close_range" and bool(arguments[2] & 2) and program.watches_a_listener()


def is_served_by_several_cpus(program, operation, *arguments) -> bool:
    """The queues of several CPUs are accepted from one after the other, not in the order of arrival."""
    return (
        operation == "epoll_ctl"
        and arguments[0] == "ADD"
        and not program.is_pinned()
        and program.is_watched(arguments[2])
    )


def is_watched_by_two_names(program, operation, *arguments) -> bool:
    """An epoll that watches a listener by two descriptors reports both, but its clone once."""
    return (
        operation == "epoll_ctl"
        and arguments[0] == "ADD"
        and program.is_watched(arguments[2])
        and program.has_another_name(arguments[2])
    )


def watches_once_beside_a_clone(program, operation, *arguments) -> bool:
    """An epoll with EPOLLONESHOT reports its listener, and apart from that what waited in a clone until then."""
    return (
        operation == "epoll_ctl"
        and arguments[0] in ("ADD", "MOD")
        and bool(arguments[3] & select.EPOLLONESHOT)
        and program.is_watched(arguments[2])
    )


def waits_beside_an_unread_edge(program, operation, *arguments) -> bool:
    """Fast-Epoll registers a connection after it has been reported, and the kernel reports what is still unread."""
    return operation in (*WAITING, "poll", "ppoll", "select") and program.has_unread_edges()


def answers_unread(program, operation, *arguments) -> bool:
    """close() of a connection with unread data makes the kernel reset it; an answer that is held leaves with a FIN."""
    return operation == "answer" and not arguments[2] and has_unread_data(arguments[0])


def reads_quickack_of_a_connection(program, operation, *arguments) -> bool:
    """A connection inherits it from its listener, on which Delayed ACK has turned it off."""
    return (
        operation == "get_option"
        and arguments[1:] == (socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        and not program.is_listener(arguments[0])
    )


def closes_what_its_child_watches(program, operation, *arguments) -> bool:
    """A child that watches an inherited listener by an epoll of its own, and closes it, loses the clone with it."""
    named = [step[0] for step in arguments[0]] if operation == "fork" else []
    return "epoll_ctl" in named and "close" in named


KNOWN = {
    predicate.__name__: predicate
    for predicate in (
        connects_behind_older_connections,
        binds_beside_a_listener,
        blocks_where_it_watches,
        shuts_down_what_does_not_listen,
        pauses_an_unnamed_port,
        watches_an_ended_listener,
        resumes_without_reuseaddr,
        is_watched_by_two_names,
        reads_reuseport_of_a_connection,
        closes_it_on_its_way,
        closes_an_epoll_on_its_way,
        is_served_by_several_cpus,
        has_a_table_of_its_own,
        watches_once_beside_a_clone,
        waits_beside_an_unread_edge,
        answers_unread,
        reads_quickack_of_a_connection,
        closes_what_its_child_watches,
    )
}
