"""Programs of socket calls as data: each line of stdin is [pinned, avoided, steps]; what they saw goes to stdout.

A step is [operation, argument, …], an operation a method of Program. "listener#1" as an argument is the second of
the descriptors that listen, "fd#7" is descriptor 7. A program runs in a process of its own, whose descriptors 3 and up
are free at the start. What it saw is a list of [step with its references resolved, what the call answered], with ports
numbered in the order in which they appear.

What the kernel does behind a call's back has happened when the next call is made (see Barrier), and a call that would
block for ever answers EINTR. So a program sees the same each time, unless it asks for what is left to chance.
"""

import ctypes
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

from differences import KNOWN
from libc import (
    ANY,
    FAMILIES,
    LOOPBACK,
    AddressBuffer,
    Answer,
    Event,
    Polled,
    Timespec,
    call,
    failed,
    family_of,
    name_of,
    option_bytes,
    option_of,
    pack,
    pack_unix,
    port_of,
    set_option,
    unpack,
)
from lines import Commands, say

NONBLOCK = socket.SOCK_NONBLOCK
LETTERS = string.ascii_lowercase
BARRIER = 0  # its descriptor in a program
FIRST, LAST = 3, 511  # the program's own descriptors
BINDING_ATTEMPTS = 5
FD_SETSIZE = 1024
CLOSE_RANGE_CLOEXEC = 4
MISSING = 63  # never open; beyond it, select() answers by the size of the descriptor table, which clones enlarge
JOURNAL_SIZE = 1 << 20
HUNG_AFTER_SECONDS = 10
BLOCKS_AFTER_SECONDS = 0.002
ARRIVAL_SECONDS = 0.5
SENDING = (1, 8)  # TCP_ESTABLISHED, TCP_CLOSE_WAIT
CLOSED = 7  # TCP_CLOSE
FIN_IS_ON_ITS_WAY = (4, 9, 11)  # TCP_FIN_WAIT1, TCP_LAST_ACK, TCP_CLOSING
SEGMENTS_PER_EXCHANGE = 4  # SYN, SYN-ACK, ACK; or FIN and ACK in both directions
SO_COOKIE, SIOCOUTQNSD = 57, 0x894B
EPOLL_CTL = {"ADD": 1, "DEL": 2, "MOD": 3}
MOST_EVENTS = 64
TAG = 1000
DUPLICATING = {"F_DUPFD": fcntl.F_DUPFD, "F_DUPFD_CLOEXEC": fcntl.F_DUPFD_CLOEXEC}
# What a program asks of what it has left open, by role; "it" is the descriptor.
ACCEPT = ["accept", "it", NONBLOCK, True]
FINAL = {
    "epoll": [["epoll_wait", "it", 0]],
    "listener": [["name", "it", "getsockname"], ACCEPT, ACCEPT, ACCEPT],
    "client": [["recv", "it", 4096, socket.MSG_DONTWAIT]],
    "accepted": [["recv", "it", 4096, socket.MSG_DONTWAIT]],
}


# ---- waiting for the kernel, not for time


class Barrier:
    """A CPU delivers in order what it sends over loopback: when our datagram is back, all before it has arrived."""

    def __init__(self, borrowed: int | None = None):
        self._socket = socket.socket(type=socket.SOCK_DGRAM, fileno=borrowed)

    @classmethod
    def opened(cls) -> "Barrier":
        barrier = cls()
        barrier._socket.bind((LOOPBACK["inet"], 0))
        barrier._socket.connect(barrier._socket.getsockname())
        return barrier

    def fileno(self) -> int:
        return self._socket.fileno()

    def _exchange(self) -> None:
        for _ in range(SEGMENTS_PER_EXCHANGE):  # each may have been sent in answer to one that we overtook
            self._socket.send(b"")
            self._socket.recv(1)

    def wait(self) -> None:
        allowed = os.sched_getaffinity(0)
        if len(allowed) == 1:
            return self._exchange()
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            self._exchange()
        os.sched_setaffinity(0, allowed)


def is_on_its_way(descriptor: int) -> bool:
    """A FIN, or data that Nagle's algorithm holds back, until the peer acknowledges, which it may delay."""
    state = state_of(descriptor)
    if state not in SENDING:
        return state in FIN_IS_ON_ITS_WAY
    return fcntl.ioctl(descriptor, SIOCOUTQNSD, bytes(4)) != bytes(4)


def wait_until_arrived(descriptor: int) -> None:
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while is_on_its_way(descriptor) and time.monotonic() < deadline:
        os.sched_yield()


@contextmanager
def interrupted():
    """A call that blocks answers EINTR; again and again, because the first signal may come before the call."""
    signal.setitimer(signal.ITIMER_REAL, BLOCKS_AFTER_SECONDS, BLOCKS_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# ---- processes


class Journal:
    """Lines in memory shared with the parent: what a child that hangs or crashes has seen until then is kept."""

    def __init__(self):
        self._memory = mmap.mmap(-1, JOURNAL_SIZE)

    def write(self, entry) -> None:
        self._memory.write(json.dumps(entry).encode() + b"\n")

    def read(self) -> list:
        self._memory.seek(0)
        entries = []
        while (line := self._memory.readline()).endswith(b"\n"):
            entries.append(json.loads(line))
        return entries


def wait_for(child: int, seconds: float | None) -> str | None:
    """How it ended, unless well."""
    pidfd = os.pidfd_open(child)
    hung = not select.select([pidfd], [], [], seconds)[0]
    os.close(pidfd)
    if hung:
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "hung" if hung else f"ended with {status}" if status else None


def in_child(work: Callable[[Journal], None], seconds: float | None = None) -> list:
    """What work() wrote in a process of its own; one with a limit leads a group, which ends with it."""
    journal = Journal()
    child = os.fork()
    if child:
        ending = wait_for(child, seconds)
        return journal.read() + ([["process", ending]] if ending else [])
    status = 1
    try:
        if seconds:
            os.setpgid(0, 0)
        work(journal)
        status = 0
    except BaseException:  # not back into the parent's code, whatever it was
        traceback.print_exc()
    finally:
        os._exit(status)


# ---- the calls


class Program:
    """Each public method is an operation: it returns what the call behind it answered."""

    def __init__(self, journal: Journal, pinned: bool, avoided: list[str], barrier: Barrier):
        self._journal = journal
        self._pinned = pinned
        self._avoided = avoided
        self._barrier = barrier
        self._sent = 0
        self._roles: dict[int, str] = {}
        self._watched: set[int] = set()  # listeners that were added to an epoll, as cookies
        self._older: dict[int, int] = {}  # of those with a clone: connections still waiting that came before it did
        self._passed_on: set[Answer] = set()  # listeners, as cookies
        self._taken_over: set[Answer] = set()  # of those: when another program was run
        self._added: set[tuple[int, Answer]] = set()  # listeners to epolls, as descriptors and cookies
        self._began_to_watch: set[int] = set()  # in this process
        self._inherited: set[int] = set()  # descriptors, from the process that forked this one
        self._named: set[int] = set()  # sockets bound to a port that the program named, as cookies
        self._reuseport: set[int] = set()  # sockets on which the program itself set it, as cookies
        self._edges: dict[int, Answer] = {}  # accepted and added edge-triggered: what their events carry, their cookie
        self._reported_edges: set[Answer] = set()  # as cookies

    def run(self, steps: list) -> None:
        for operation, *arguments in steps:
            arguments = [self._resolved(argument) for argument in arguments]
            answer = self._avoided_as(operation, arguments) or getattr(self, operation)(*arguments)
            self._barrier.wait()
            shown = [argument for argument in arguments if not is_program(argument)]
            self._journal.write([" ".join(map(str, [operation, *shown])), answer])

    def _avoided_as(self, operation: str, arguments: list) -> str | None:
        return next((f"avoided: {name}" for name in self._avoided if KNOWN[name](self, operation, *arguments)), None)

    def _resolved(self, argument):
        if isinstance(argument, list) and not is_program(argument):
            return [self._resolved(element) for element in argument]
        if not isinstance(argument, str) or "#" not in argument:
            return argument
        role, index = argument.split("#")
        if role == "fd":
            return int(index)
        numbers = [number for number, its in sorted(self._roles.items()) if role in (its, "any")]
        return numbers[int(index) % len(numbers)] if numbers else MISSING

    def _opened(self, answer: Answer, role: str) -> Answer:
        if not failed(answer):
            self._roles[answer] = role
        return answer

    def _closed(self, first: int, last: int) -> None:
        self._roles = {number: role for number, role in self._roles.items() if not first <= number <= last}
        self._inherited &= self._roles.keys()

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

    def watches_as_a_worker(self, descriptor: int) -> bool:
        """A listener that the process which forked this one has open, too."""
        return descriptor in self._inherited & self._began_to_watch

    def is_named(self, descriptor: int) -> bool:
        """Bound to a port that the program itself named."""
        return cookie_of(descriptor) in self._named

    def is_inherited(self, descriptor: int) -> bool:
        return descriptor in self._inherited

    def is_paused(self, descriptor: int) -> bool:
        """A listener that was shut down."""
        return (
            self._roles.get(descriptor) == "listener"
            and family_of_socket(descriptor) in LOOPBACK
            and not self.is_listener(descriptor)
        )

    def shares_with_its_parent(self, descriptor: int) -> bool:
        """Something that a worker has inherited, and goes on using when it has adopted a clone of its own."""
        return not self._pinned and bool(self._began_to_watch) and descriptor in self._inherited

    def watches_a_listener(self) -> bool:
        return any(self.is_watched(descriptor) for descriptor in self._roles)

    def has_adopted(self, descriptor: int) -> bool:
        """The only clone of a listener, as far as can be told without the library."""
        return self._pinned and cookie_of(descriptor) in self._older

    def has_older_connections(self, descriptor: int) -> bool:
        """That is, older than the adoption of its clone."""
        return self._older.get(cookie_of(descriptor), 0) > 0

    def was_taken_over(self, descriptor: int) -> bool:
        """A listener that was passed on, and then inherited by another program."""
        return cookie_of(descriptor) in self._taken_over

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

    # ---- sockets

    def socket(self, family: str, kind: str, flags: int) -> Answer:
        type_ = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}[kind]
        return self._opened(call("socket", FAMILIES[family], type_ | flags, 0), "socket")

    def set_option(self, descriptor: int, level: int, name: int, value: int) -> Answer:
        answer = set_option(descriptor, level, name, value)
        if (level, name) == (socket.SOL_SOCKET, socket.SO_REUSEPORT) and answer == 0:
            (self._reuseport.add if value else self._reuseport.discard)(cookie_of(descriptor))
        return answer

    def get_option(self, descriptor: int, level: int, name: int) -> Answer:
        answer = option_of(descriptor, level, name)
        if name == socket.SO_INCOMING_CPU and not failed(answer):
            return "a CPU" if answer < os.cpu_count() else "none"
        return answer

    def bind(self, descriptor: int, where: str, named: bool) -> Answer:
        """To "loopback" or to "any" address; a free port is named or left to the kernel, as Unix names always are."""
        family = family_of_socket(descriptor)
        hosts = LOOPBACK if where == "loopback" else ANY
        if family not in hosts:
            return self._bind(descriptor, pack_unix(b""))
        if named:
            return self._bind_to_free_port(descriptor, family, hosts[family])
        return self._bind(descriptor, pack(family, hosts[family], 0))

    def _bind_to_free_port(self, descriptor: int, family: str, host: str) -> Answer:
        """Again where somebody else has taken it meanwhile."""
        for _ in range(BINDING_ATTEMPTS):
            answer = self._bind(descriptor, pack(family, host, free_port(family, host)))
            if answer != "EADDRINUSE":
                break
        return answer

    def bind_path(self, descriptor: int, name: str) -> Answer:
        return self._bind(descriptor, pack_unix(name.encode() + b"\0"))

    def bind_like(self, descriptor: int, other: int) -> Answer:
        """Unless it is a client that has given its port back: an earlier program's TIME_WAIT may have that."""
        if self._roles.get(other) == "client" and state_of(other) == CLOSED:
            return "left to chance"
        address = name_of(other)
        return address if failed(address) else self._bind(descriptor, address)

    def _bind(self, descriptor: int, address: bytes) -> Answer:
        answer = call("bind", descriptor, address, len(address))
        if answer == 0 and port_of(address):
            self._named.add(cookie_of(descriptor))
        return answer

    def listen(self, descriptor: int, backlog: int) -> Answer:
        answer = call("listen", descriptor, backlog)
        if answer == 0:
            self._roles[descriptor] = "listener"
        return answer

    def accept(self, descriptor: int, flags: int | None, with_address: bool) -> list:
        """accept4() if there are flags, even 0."""
        buffer = AddressBuffer()
        arguments = [descriptor, *(buffer.arguments if with_address else (None, None))]
        with interrupted():
            answer = call("accept", *arguments) if flags is None else call("accept4", *arguments, flags)
        if failed(answer):
            return [answer]
        if self.has_older_connections(descriptor):
            self._older[cookie_of(descriptor)] -= 1
        self._opened(answer, "accepted")
        peer = unpack(buffer.read()) if with_address else None
        return [answer, is_nonblocking(answer), closes_on_exec(answer), peer]

    def connect(self, descriptor: int, target: int) -> Answer:
        address = self._address_of(target)
        return address if failed(address) else self._connect(descriptor, reachable(address))

    def _address_of(self, target: int) -> bytes | str:
        """Unless it is that of a SO_REUSEPORT group: which of them gets a connection is left to chance."""
        group = {cookie_of(listener) for listener in self._listeners_at(target)}
        return "left to chance" if len(group) > 1 else name_of(target)

    def connect_nowhere(self, descriptor: int) -> Answer:
        family = family_of_socket(descriptor)
        return self._connect(descriptor, pack(family, LOOPBACK[family], 1) if family in LOOPBACK else pack_unix(b"x"))

    def disconnect(self, descriptor: int) -> Answer:
        return self._connect(descriptor, struct.pack("=H14x", socket.AF_UNSPEC))

    def _connect(self, descriptor: int, address: bytes) -> Answer:
        answer = call("connect", descriptor, address, len(address))
        if self._roles.get(descriptor) == "socket" and answer in (0, "EINPROGRESS"):
            self._roles[descriptor] = "client"
        return answer

    def client(self, target: int, family: str | None, flags: int) -> list:
        """A new socket, connected to this one; to a port of both families from the one or the other."""
        address = self._address_of(target)
        if failed(address):
            return [address]
        if family and family_of(address) in LOOPBACK:
            address = pack(family, LOOPBACK[family], port_of(address))
        descriptor = self.socket(family_of(address), "stream", flags)
        return [descriptor] if failed(descriptor) else [descriptor, self._connect(descriptor, reachable(address))]

    def name(self, descriptor: int, which: str) -> dict | str:
        address = name_of(descriptor, which)
        return address if failed(address) else unpack(address)

    def send(self, descriptor: int, size: int) -> Answer:
        """Another letter each time, so that no stream is taken for another."""
        self._sent += 1
        data = LETTERS[self._sent % len(LETTERS)] * size
        answer = call("send", descriptor, data.encode(), size, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        wait_until_arrived(descriptor)
        return answer

    def recv(self, descriptor: int, size: int, flags: int) -> list:
        buffer = ctypes.create_string_buffer(size)
        with interrupted():
            answer = call("recv", descriptor, buffer, size, flags)
        return [answer] if failed(answer) else [answer, buffer.raw[:answer].decode()]

    def shutdown(self, descriptor: int, how: int) -> Answer:
        answer = call("shutdown", descriptor, how)
        wait_until_arrived(descriptor)
        return answer

    # ---- descriptors

    def open(self) -> Answer:
        return self._opened(os.open(os.devnull, os.O_RDONLY), "file")

    def close(self, descriptor: int) -> Answer:
        answer = call("close", descriptor)
        self._closed(descriptor, descriptor)
        return answer

    def close_range(self, first: int, last: int, flags: int) -> Answer:
        answer = call("close_range", first, last, flags)
        if answer == 0 and not flags & CLOSE_RANGE_CLOEXEC:
            self._closed(first, last)
        return answer

    def closefrom(self, first: int) -> None:
        """A void function: what it returns means nothing."""
        call("closefrom", first)
        self._closed(first, LAST)

    def dup(self, descriptor: int) -> Answer:
        return self._duplicated(call("dup", descriptor), descriptor)

    def fcntl_dup(self, descriptor: int, command: str, least: int) -> Answer:
        return self._duplicated(call("fcntl", descriptor, DUPLICATING[command], least), descriptor)

    def dup2(self, descriptor: int, to: int) -> Answer:
        return self._duplicated(call("dup2", descriptor, to), descriptor)

    def dup3(self, descriptor: int, to: int, flags: int) -> Answer:
        return self._duplicated(call("dup3", descriptor, to, flags), descriptor)

    def _duplicated(self, answer: Answer, original: int) -> Answer:
        if answer != original and not failed(answer):
            self._closed(answer, answer)
            self._inherited |= {answer} if original in self._inherited else set()
        return self._opened(answer, self._roles.get(original))

    def set_nonblocking(self, descriptor: int, nonblocking: bool) -> Answer:
        return call("fcntl", descriptor, fcntl.F_SETFL, os.O_NONBLOCK if nonblocking else 0)

    def pass_on(self, descriptor: int, close_it: bool) -> Answer:
        """Through a Unix socket to ourselves; the original may be closed while the message is on its way."""
        role = self._roles.get(descriptor)
        if role is None or not is_open(descriptor):  # else the number could be that of our Unix socket
            return "EBADF"
        inherited = self._inherited & {descriptor}
        sender, receiver = socket.socketpair()
        with sender, receiver:
            socket.send_fds(sender, [b"x"], [descriptor])
            if close_it:
                self.close(descriptor)
            received = socket.recv_fds(receiver, 1, 1)[1][0]
        self._inherited |= {received} if inherited else set()
        self._passed_on |= {cookie_of(received)} if role == "listener" else set()
        return self._opened(received, role)

    # ---- waiting for events

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

    def _begin_to_watch(self, descriptor: int) -> None:
        cookie = cookie_of(descriptor)
        self._began_to_watch.add(descriptor)
        self._added.add((descriptor, cookie))
        self._watched.add(cookie)

    def _begin_to_wait(self) -> None:
        """Now the library may adopt clones of what is watched."""
        for descriptor, cookie in self._added:
            if cookie_of(descriptor) == cookie and cookie not in self._older and is_nonblocking(descriptor):
                self._older[cookie] = waiting_connections(descriptor)

    def epoll_wait(self, epoll: int, timeout: int) -> list | str:
        return self._epoll_wait("epoll_wait", epoll, timeout)

    def epoll_pwait(self, epoll: int, timeout: int) -> list | str:
        return self._epoll_wait("epoll_pwait", epoll, timeout, None)

    def _epoll_wait(self, name: str, epoll: int, timeout: int, *mask) -> list | str:
        events = (Event * MOST_EVENTS)()
        self._begin_to_wait()
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
        self._begin_to_wait()
        return results_of(polled, call("poll", polled, len(polled), 0))

    def ppoll(self, descriptors: list[int], events: int) -> list | str:
        polled = (Polled * len(descriptors))(*[(descriptor, events, 0) for descriptor in descriptors])
        self._begin_to_wait()
        return results_of(polled, call("ppoll", polled, len(polled), ctypes.byref(Timespec(0, 0)), None))

    def select(self, descriptors: list[int]) -> list | str:
        """Which are readable, and which writable."""
        wanted = sum(1 << descriptor for descriptor in set(descriptors)).to_bytes(FD_SETSIZE // 8, sys.byteorder)
        reading, writing = ctypes.create_string_buffer(wanted), ctypes.create_string_buffer(wanted)
        self._begin_to_wait()
        answer = call("select", FD_SETSIZE, reading, writing, None, ctypes.byref(Timespec(0, 0)))
        if failed(answer):
            return answer
        return [hex(int.from_bytes(ready.raw[:-1], sys.byteorder)) for ready in (reading, writing)]

    # ---- processes and threads

    def fork(self, steps: list) -> list:
        return in_child(lambda journal: self._run_as_child(journal, steps))

    def _run_as_child(self, journal: Journal, steps: list) -> None:
        self._journal = journal
        self._began_to_watch = set()
        self._inherited = set(self._roles)
        if not self._pinned:  # else it adopts what its parent has adopted
            self._older = {}
        self.run(steps)
        self._leave()

    def _leave(self) -> None:
        """As a worker that goes should: it takes what waits for it, because nobody else can."""
        for descriptor in self._began_to_watch:
            self._journal.write([f"accept all {descriptor}", self._accept_all(descriptor)])
        for descriptor in list(self._roles):
            self.close(descriptor)
        self._barrier.wait()

    def _accept_all(self, descriptor: int) -> int:
        number = 0
        while not failed(self.accept(descriptor, NONBLOCK, False)[0]):
            number += 1
        return number

    def thread(self, steps: list) -> None:
        """One that has ended before the next step; signals must not reach who waits for it instead."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        before = number_of_threads()
        thread = threading.Thread(target=self._run_as_thread, args=[steps])
        thread.start()
        thread.join()
        while number_of_threads() > before:  # join() returns while it still holds the descriptors
            os.sched_yield()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    def _run_as_thread(self, steps: list) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self.run(steps)

    def spawn(self, how: str) -> int:
        """Run true(1), which inherits all that is not close-on-exec."""
        self._taken_over |= self._passed_on
        if how == "subprocess":
            return subprocess.run(["true"]).returncode
        if how == "posix_spawn":
            child = os.posix_spawnp("true", ["true"], os.environ)
        elif not (child := os.fork()):
            os.execlp("true", "true")
        return os.waitpid(child, 0)[1]

    # ---- the end

    def finish(self) -> None:
        """What is left must be the same, too."""
        self.run([["flags_of_all"]])
        for role, steps in FINAL.items():
            own = [number for number, its in sorted(self._roles.items()) if its == role]
            self.run([[number if part == "it" else part for part in step] for number in own for step in steps])

    def flags_of_all(self) -> list:
        """Close-on-exec or not, of each open descriptor."""
        flags = {number: call("fcntl", number, fcntl.F_GETFD) for number in range(FIRST, MISSING)}
        return [[number, flag] for number, flag in flags.items() if not failed(flag)]


def is_program(argument) -> bool:
    return isinstance(argument, list) and all(isinstance(step, list) for step in argument)


def is_nonblocking(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK)


def closes_on_exec(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


def is_open(descriptor: int) -> bool:
    return not failed(call("fcntl", descriptor, fcntl.F_GETFD))


def cookie_of(descriptor: int) -> Answer:
    return option_of(descriptor, socket.SOL_SOCKET, SO_COOKIE)


def has_something(connection: int) -> bool:
    asked = select.poll()
    asked.register(connection, select.POLLIN | select.POLLPRI | select.POLLRDHUP)
    return bool(asked.poll(0))


def state_of(descriptor: int) -> int | None:
    """tcpi_state; None: it is not of TCP."""
    information = option_bytes(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return information[0] if isinstance(information, bytes) else None


def waiting_connections(listener: int) -> int:
    """tcpi_unacked, which of a listener is the length of its accept queue."""
    return struct.unpack_from("I", option_bytes(listener, socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)[0]


def family_of_socket(descriptor: int) -> str | None:
    address = name_of(descriptor)
    return None if failed(address) else family_of(address)


def port_of_socket(descriptor: int) -> int:
    address = name_of(descriptor)
    return 0 if failed(address) else port_of(address)


def number_of_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def free_port(family: str, host: str) -> int:
    with socket.socket(FAMILIES[family]) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def reachable(address: bytes) -> bytes:
    """Where to find who is bound to any address."""
    family = family_of(address)
    if family in LOOPBACK and unpack(address)["host"] == ANY[family]:
        return pack(family, LOOPBACK[family], port_of(address))
    return address


def results_of(polled, answer: Answer) -> list | str:
    return answer if failed(answer) else [[entry.fd, entry.revents] for entry in polled]


# ---- the interpreter


def numbered(entry, seen: dict):
    """Ports and names that the kernel chose, in the order in which they appear."""
    if isinstance(entry, list):
        return [numbered(element, seen) for element in entry]
    if not isinstance(entry, dict):
        return entry
    return {key: value if key == "host" else seen.setdefault(value, len(seen)) for key, value in entry.items()}


def run(journal: Journal, cpus: list[int], command: list, barrier: Barrier) -> None:
    pinned, avoided, steps = command
    signal.signal(signal.SIGALRM, lambda *_: None)
    os.sched_setaffinity(0, cpus[:1] if pinned else cpus)
    os.dup2(barrier.fileno(), BARRIER, False)
    os.closerange(FIRST, LAST + 1)
    program = Program(journal, pinned, avoided, Barrier(BARRIER))
    program.run(steps)
    program.finish()


def main() -> None:
    """The CPUs are arguments; a program that is pinned runs on the first of them."""
    cpus = [int(argument) for argument in sys.argv[1:]]
    socket.create_server((LOOPBACK["inet"], 0)).close()  # here, so that all programs share the library's counters
    commands, barrier = Commands(0), Barrier.opened()
    while command := commands.next():
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            seen = in_child(lambda journal: run(journal, cpus, command, barrier), HUNG_AFTER_SECONDS)
            os.chdir("/")
        say(numbered(seen, {}))


if __name__ == "__main__":
    main()
