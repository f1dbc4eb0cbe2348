"""What a program of socket calls has done so far, and what differences.py asks of it."""

import socket

from descriptors import cookie_of, family_of_socket, has_something, is_nonblocking, port_of_socket, waiting_connections
from libc import LOOPBACK, Answer, failed, option_of

FIRST, LAST = 3, 511  # the program's own descriptors
MISSING = 63  # never open; beyond it, select() answers by the size of the descriptor table, which clones enlarge


class Memory:
    """The roles of descriptors, and the past of sockets, which are known by their cookies."""

    def __init__(self, pinned: bool):
        self._pinned = pinned
        self._sent = 0
        self._roles: dict[int, str] = {}
        self._watched: set[int] = set()  # listeners that were added to an epoll, as cookies
        self._older: dict[int, int] = {}  # of those with a clone: connections still waiting that came before it did
        self._added: set[tuple[int, Answer]] = set()  # listeners to epolls, as descriptors and cookies
        self._began_to_watch: set[int] = set()  # in this process
        self._named: set[int] = set()  # sockets bound to a port that the program named, as cookies
        self._reuseport: set[int] = set()  # sockets on which the program itself set it, as cookies
        self._edges: dict[int, Answer] = {}  # accepted and added edge-triggered: what their events carry, their cookie
        self._reported_edges: set[Answer] = set()  # as cookies

    def _opened(self, answer: Answer, role: str) -> Answer:
        if not failed(answer):
            self._roles[answer] = role
        return answer

    def _closed(self, first: int, last: int) -> None:
        self._roles = {number: role for number, role in self._roles.items() if not first <= number <= last}

    # ---- what the predicates of differences.py ask

    def is_epoll(self, descriptor: int) -> bool:
        return self._roles.get(descriptor) == "epoll"

    def is_listener(self, descriptor: int) -> bool:
        """Of TCP."""
        return option_of(descriptor, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1 and option_of(
            descriptor, socket.SOL_SOCKET, socket.SO_DOMAIN
        ) in (socket.AF_INET, socket.AF_INET6)

    def is_pinned(self) -> bool:
        return self._pinned

    def has_another_name(self, descriptor: int) -> bool:
        """Open, or closed since an epoll that holds it has got it."""
        added = {number for number, cookie in self._added if cookie == cookie_of(descriptor)}
        return bool(added - {descriptor}) or any(
            other != descriptor and cookie_of(other) == cookie_of(descriptor) for other in self._roles
        )

    def is_watched(self, descriptor: int) -> bool:
        """A listener that was added to an epoll."""
        return cookie_of(descriptor) in self._watched

    def is_named(self, descriptor: int) -> bool:
        """Bound to a port that the program itself named."""
        return cookie_of(descriptor) in self._named

    def is_paused(self, descriptor: int) -> bool:
        """A listener that was shut down."""
        return (
            self._roles.get(descriptor) == "listener"
            and family_of_socket(descriptor) in LOOPBACK
            and not self.is_listener(descriptor)
        )

    def watches_a_listener(self) -> bool:
        return any(self.is_watched(descriptor) for descriptor in self._roles)

    def has_older_connections(self, descriptor: int) -> bool:
        """That is, older than the adoption of its clone."""
        return self._older.get(cookie_of(descriptor), 0) > 0

    def has_unread_edges(self) -> bool:
        """An accepted connection that was reported edge-triggered, and still has something to report."""
        reported = [number for number in self._roles if cookie_of(number) in self._reported_edges]
        return any(has_something(number) for number in reported)

    def would_share_a_port(self, descriptor: int, address_of: int) -> bool:
        """With a listener, for which only this one's owner has set SO_REUSEPORT."""
        if cookie_of(descriptor) not in self._reuseport:
            return False
        return any(cookie_of(other) not in self._reuseport for other in self._listeners_at(address_of))

    def was_accepted(self, descriptor: int) -> bool:
        return self._roles.get(descriptor) == "accepted"

    def _listeners_at(self, descriptor: int) -> list[int]:
        port = port_of_socket(descriptor)
        return [other for other in self._roles if port and port_of_socket(other) == port and self.is_listener(other)]

    # ---- what the library may do

    def _begin_to_watch(self, descriptor: int) -> None:
        cookie = cookie_of(descriptor)
        self._began_to_watch.add(descriptor)
        self._added.add((descriptor, cookie))
        self._watched.add(cookie)

    def _clones_may_be_adopted(self) -> None:
        """Of what is watched, for the first time or again: what waits by now is older than them."""
        for descriptor, cookie in self._added:
            if cookie_of(descriptor) == cookie and is_nonblocking(descriptor):
                self._older[cookie] = waiting_connections(descriptor)
