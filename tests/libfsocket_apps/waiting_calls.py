"""Operations that wait for events: each returns what the call behind it answered."""

import ctypes
import select
import sys
from contextlib import nullcontext

from barrier import interrupted
from descriptors import (
    cookie_of,
)
from libc import (
    Answer,
    Event,
    Polled,
    Timespec,
    call,
    failed,
)
from memory import Memory

FD_SETSIZE = 1024
EPOLL_CTL = {"ADD": 1, "DEL": 2, "MOD": 3}
MOST_EVENTS = 64
TAG = 1000


class WaitingCalls(Memory):
    def epoll_create(self, flags: int) -> Answer:
        return self._opened(call("epoll_create1", flags), "epoll")

    def epoll_ctl(self, operation: str, epoll: int, descriptor: int, events: int, tag: int) -> Answer:
        event = Event(events, descriptor + TAG * tag)
        is_listener = self.is_listener(descriptor)
        answer = call("epoll_ctl", epoll, EPOLL_CTL[operation], descriptor, ctypes.byref(event))
        if operation == "ADD" and answer == 0 and is_listener:
            self._begin_to_watch(descriptor)
        if answer == 0 and events & select.EPOLLET and self._roles.get(descriptor) == "accepted":
            self._edges[event.data] = cookie_of(descriptor)
        return answer

    def epoll_wait(self, epoll: int, timeout: int) -> list | str:
        return self._epoll_wait("epoll_wait", epoll, timeout)

    def epoll_pwait(self, epoll: int, timeout: int) -> list | str:
        return self._epoll_wait("epoll_pwait", epoll, timeout, None)

    def _epoll_wait(self, name: str, epoll: int, timeout: int, *mask) -> list | str:
        events = (Event * MOST_EVENTS)()
        self._clones_may_be_adopted()
        with interrupted() if timeout < 0 else nullcontext():
            answer = call(name, epoll, events, MOST_EVENTS, timeout, *mask)
        if failed(answer):
            return answer
        ready: dict[int, int] = {}
        for event in events[:answer]:  # how many of them say the same is no matter
            ready[event.data] = ready.get(event.data, 0) | event.events
        self._reported_edges |= {self._edges[data] for data in ready if data in self._edges}
        return sorted(ready.items())

    def poll(self, descriptors: list[int], events: int) -> list | str:
        polled = (Polled * len(descriptors))(*[(descriptor, events, 0) for descriptor in descriptors])
        self._clones_may_be_adopted()
        return results_of(polled, call("poll", polled, len(polled), 0))

    def ppoll(self, descriptors: list[int], events: int) -> list | str:
        polled = (Polled * len(descriptors))(*[(descriptor, events, 0) for descriptor in descriptors])
        self._clones_may_be_adopted()
        return results_of(polled, call("ppoll", polled, len(polled), ctypes.byref(Timespec(0, 0)), None))

    def select(self, descriptors: list[int]) -> list | str:
        """Which are readable, and which writable."""
        wanted = sum(1 << descriptor for descriptor in set(descriptors)).to_bytes(FD_SETSIZE // 8, sys.byteorder)
        reading, writing = ctypes.create_string_buffer(wanted), ctypes.create_string_buffer(wanted)
        self._clones_may_be_adopted()
        answer = call("select", FD_SETSIZE, reading, writing, None, ctypes.byref(Timespec(0, 0)))
        if failed(answer):
            return answer
        return [hex(int.from_bytes(ready.raw[:-1], sys.byteorder)) for ready in (reading, writing)]


def results_of(polled, answer: Answer) -> list | str:
    return answer if failed(answer) else [[entry.fd, entry.revents] for entry in polled]
