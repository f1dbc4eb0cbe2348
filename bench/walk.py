"""On which CPU each step of a proxied connection happens. The slides' walk-through numbers the steps.

fastsocket/bpf/walk.bpf.c sees the steps. The kernel has no tracepoint for accept(), so step 9 is seen at the first
read, which the thread that accepted makes.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from fastsocket import reads
from records.walk import ACTIVE_STEPS, PASSIVE_STEPS, Step, write_walk

_SEEN, _EVENT = struct.Struct("=Q"), struct.Struct("=QIHHHHI")
_PROGRAMS = ("comes_in", "goes_out", "changes_state")


class What(IntEnum):
    """The kinds of event, with the numbers that they have in fastsocket/bpf/walk.bpf.c."""

    SYN_IN, SYN_ACK_OUT, ACK_IN, ACCEPTED, READ, CONNECTING, SYN_OUT, SYN_ACK_IN, CONNECTED, ACK_OUT = range(10)


_PASSIVE = {What.SYN_IN: 3, What.SYN_ACK_OUT: 5, What.ACK_IN: 7, What.ACCEPTED: 8, What.READ: 9}
_ACTIVE = {What.SYN_OUT: 12, What.SYN_ACK_IN: 13, What.CONNECTED: 14, What.ACK_OUT: 15}


class Event(NamedTuple):
    """An event that fastsocket/bpf/walk.bpf.c saw.

    ns: time in nanoseconds. thread: the thread that ran on the CPU; in a softirq it is the thread that was interrupted.
    """

    ns: int
    thread: int
    cpu: int
    what: What
    local_port: int
    remote_port: int


@contextmanager
def walked(path: Path, server_pid: int, ports: range, scratch: Path) -> Iterator[None]:
    """Trace the connections to these ports until the context ends, and write their steps to path.

    Raises BpfError if the kernel lacks the tracepoints.
    """
    seen_by = reads.tracepoint()
    with reads.load("walk", seen_by) as program:
        program.write(".data", struct.pack("=I", Path(f"/proc/{server_pid}/ns/net").stat().st_ino))
        for name in (*_PROGRAMS, seen_by):
            program.attach(name)
        yield
        seen = program.read(".bss")
    write_walk(path, connections(_events(seen), ports))


def _events(seen: bytes) -> list[Event]:
    """Decode the events of the BPF program's memory, sorted by time."""
    count = min(_SEEN.unpack_from(seen)[0], (len(seen) - _SEEN.size) // _EVENT.size)
    rows = (_EVENT.unpack_from(seen, _SEEN.size + number * _EVENT.size) for number in range(count))
    return sorted(Event(ns, thread, cpu, What(what), local, remote) for ns, thread, cpu, what, local, remote, _ in rows)


def connections(events: Iterable[Event], ports: range) -> Iterator[Step]:
    """The steps of each connection through the proxy, if all steps of the connection were seen.

    A connection to the backend belongs to the client from whom the connecting thread has read since it last connected.
    If the thread has read from several clients, or from none, the client is not known, and the connection is left out.
    """
    seen = _Seen(ports)
    for event in events:
        seen.add(event)
    for number, (client, port, steps) in enumerate(seen.complete()):
        for step, event in sorted(steps.items()):
            source_port = client if step in PASSIVE_STEPS else port
            yield Step(number, step, event.cpu, round((event.ns - steps[3].ns) / 1000, 1), source_port)


class _Seen:
    """Assigns events to connections, one event after the other."""

    def __init__(self, ports: range):
        self._ports = ports
        self._passive: dict[int, dict[int, Event]] = {}  # client's port -> step -> event
        self._active: dict[int, dict[int, Event]] = {}  # proxy's port -> step -> event
        self._read_by: dict[int, list[int]] = {}  # thread -> clients that it has read from since it last connected
        self._client_of: dict[int, int] = {}  # proxy's port -> client's port
        self._connecting: dict[int, Event] = {}  # thread -> the connect() call that it is in

    def add(self, event: Event) -> None:
        """Assign one more event to its connection. Events come in the order in which they happened."""
        if event.local_port in self._ports:
            self._add_passive(event)
        elif event.what == What.CONNECTING:  # the kernel chooses the port only after this
            self._connecting[event.thread] = event
        elif event.what == What.SYN_OUT and event.thread in self._connecting:
            self._connect(event)
        elif event.what in _ACTIVE and event.local_port in self._active:
            self._active[event.local_port].setdefault(_ACTIVE[event.what], event)

    def _add_passive(self, event: Event) -> None:
        if event.what == What.SYN_IN:
            self._passive[event.remote_port] = {3: event}
        elif event.what in _PASSIVE and event.remote_port in self._passive:
            steps = self._passive[event.remote_port]
            if event.what == What.READ and 9 not in steps:
                self._read_by.setdefault(event.thread, []).append(event.remote_port)
            steps.setdefault(_PASSIVE[event.what], event)

    def _connect(self, syn: Event) -> None:
        self._active[syn.local_port] = {10: self._connecting.pop(syn.thread), 12: syn}
        clients = self._read_by.pop(syn.thread, [])
        if len(clients) == 1:
            self._client_of[syn.local_port] = clients[0]

    def complete(self) -> Iterator[tuple[int, int, dict[int, Event]]]:
        """The client's port, the proxy's port and the steps of each connection whose steps were all seen."""
        for port, client in self._client_of.items():
            steps = {**self._passive[client], **self._active[port]}
            if steps.keys() >= {*PASSIVE_STEPS, *ACTIVE_STEPS}:
                yield client, port, steps
