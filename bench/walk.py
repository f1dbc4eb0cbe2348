"""On which CPU each step of a proxied connection happened, as the slides' walk-through numbers them: bpf/walk.bpf.c.

The kernel has no tracepoint for accept(): step 9 is seen at the first read, which the thread that accepted makes.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from bench import reads
from records.walk import ACTIVE_STEPS, PASSIVE_STEPS, Step, write_walk

_SEEN, _EVENT = struct.Struct("=Q"), struct.Struct("=QIHHHHI")
_PROGRAMS = ("comes_in", "goes_out", "changes_state")


class What(IntEnum):
    """As in bpf/walk.bpf.c."""

    SYN_IN, SYN_ACK_OUT, ACK_IN, ACCEPTED, READ, CONNECTING, SYN_OUT, SYN_ACK_IN, CONNECTED, ACK_OUT = range(10)


_PASSIVE = {What.SYN_IN: 3, What.SYN_ACK_OUT: 5, What.ACK_IN: 7, What.ACCEPTED: 8, What.READ: 9}
_ACTIVE = {What.SYN_OUT: 12, What.SYN_ACK_IN: 13, What.CONNECTED: 14, What.ACK_OUT: 15}


class Event(NamedTuple):
    """One of them; thread is the current one, which a softirq merely interrupts."""

    ns: int
    thread: int
    cpu: int
    what: What
    local_port: int
    remote_port: int


@contextmanager
def walked(path: Path, server_pid: int, ports: range, scratch: Path) -> Iterator[None]:
    """Leave the steps of the connections to these ports meanwhile at path. Raises BpfError without the tracepoints."""
    seen_by = reads.tracepoint()
    with reads.load("walk", seen_by) as program:
        program.write(".data", struct.pack("=I", Path(f"/proc/{server_pid}/ns/net").stat().st_ino))
        for name in (*_PROGRAMS, seen_by):
            program.attach(name)
        yield
        seen = program.read(".bss")
    write_walk(path, connections(_events(seen), ports))


def _events(seen: bytes) -> list[Event]:
    """In the order in which they happened."""
    count = min(_SEEN.unpack_from(seen)[0], (len(seen) - _SEEN.size) // _EVENT.size)
    rows = (_EVENT.unpack_from(seen, _SEEN.size + number * _EVENT.size) for number in range(count))
    return sorted(Event(ns, thread, cpu, What(what), local, remote) for ns, thread, cpu, what, local, remote, _ in rows)


def connections(events: Iterable[Event], ports: range) -> Iterator[Step]:
    """The steps of each connection through the proxy of which all were seen.

    A connection to the backend belongs to the client whose request its thread read last; one that a thread makes while
    it has read from several clients, or from none, cannot be told whose it is, and is left out with them.
    """
    passive: dict[int, dict[int, Event]] = {}  # client's port -> step -> event
    active: dict[int, dict[int, Event]] = {}  # proxy's port -> step -> event
    read_by: dict[int, list[int]] = {}  # thread -> clients whose requests it has read, and not passed on
    client_of: dict[int, int] = {}  # proxy's port -> client's port
    connecting: dict[int, Event] = {}  # thread -> the connect() that it is in
    for event in events:
        if event.local_port in ports:
            _passive_step(event, passive, read_by)
        elif event.what == What.CONNECTING:  # the kernel chooses the port only after this
            connecting[event.thread] = event
        elif event.what == What.SYN_OUT and event.thread in connecting:
            active[event.local_port] = {10: connecting.pop(event.thread), 12: event}
            clients = read_by.pop(event.thread, [])
            if len(clients) == 1:
                client_of[event.local_port] = clients[0]
        elif event.what in _ACTIVE and event.local_port in active:
            active[event.local_port].setdefault(_ACTIVE[event.what], event)
    number = 0
    for port, client in client_of.items():
        steps = {**passive[client], **active[port]}
        if set(steps) >= {*PASSIVE_STEPS, *ACTIVE_STEPS}:
            yield from (
                Step(
                    number,
                    step,
                    event.cpu,
                    round((event.ns - steps[3].ns) / 1000, 1),
                    client if step in PASSIVE_STEPS else port,
                )
                for step, event in sorted(steps.items())
            )
            number += 1


def _passive_step(event: Event, passive: dict[int, dict[int, Event]], read_by: dict[int, list[int]]) -> None:
    if event.what == What.SYN_IN:
        passive[event.remote_port] = {3: event}
    elif event.what in _PASSIVE and event.remote_port in passive:
        steps = passive[event.remote_port]
        if event.what == What.READ and 9 not in steps:
            read_by.setdefault(event.thread, []).append(event.remote_port)
        steps.setdefault(_PASSIVE[event.what], event)
