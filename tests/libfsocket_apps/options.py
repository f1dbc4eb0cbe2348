"""Listeners with one option set, and all options of a socket that they accept. Commands: see the functions."""

import ctypes
import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack

from lines import Commands, say
from loopback import connect

LIBC = ctypes.CDLL(None, use_errno=True)
LEVELS = (socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_TCP)
NUMBERS = range(128)
VALUE_BYTES = 256
PATIENCE_SECONDS = 0.5 * float(os.environ.get("FASTSOCKET_TEST_PATIENCE", "1"))
PADDING = bytes.fromhex("0000010400000000")  # a header of IPv6 options that says nothing (RFC 8200, 4.2)
# Numbers, seconds and microseconds, an interface by number and by name, a range of ports, an algorithm.
VALUES = (
    *(struct.pack("i", number) for number in (1, 33, 20000, 0)),
    struct.pack("!i", 1),
    PADDING,
    struct.pack("ii", 1, 7),
    struct.pack("ll", 3, 0),
    struct.pack("HH", 40000, 50000),
    b"lo\0",
    b"reno".ljust(16, b"\0"),
)
# Different for each socket: peer's name, cookie, NAPI id, memory, IP_PROTOCOL (the port), what IPv6 got last, TCP_INFO,
# TCP_CC_INFO, TCP_TIMESTAMP, TCP_SAVED_SYN. SO_PEERPIDFD opens a descriptor; IPV6_FLOWLABEL_MGR reads its buffer.
# SO_REUSEPORT and SO_INCOMING_CPU are how the library works.
NOT_COMPARED = {
    socket.SOL_SOCKET: {15, 28, 49, 55, 56, 57, 77},
    socket.IPPROTO_IP: {52},
    socket.IPPROTO_IPV6: {6, 32},
    socket.IPPROTO_TCP: {11, 24, 26, 28},
}


def attempt(call: Callable, *arguments) -> str:
    """ "" or the name of the error."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def value_of(sock: socket.socket, level: int, number: int) -> str:
    """Some options read the buffer first. Python would leave in it what the memory held before."""
    buffer, size = ctypes.create_string_buffer(VALUE_BYTES), ctypes.c_uint32(VALUE_BYTES)
    if LIBC.getsockopt(sock.fileno(), level, number, buffer, ctypes.byref(size)):
        return errno.errorcode[ctypes.get_errno()]
    return buffer.raw[: size.value].hex()


def unbound(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def listening(host: str) -> socket.socket:
    sock = unbound(host)
    sock.bind((host, 0))
    sock.listen()
    return sock


def changes(make: Callable, host: str, level: int, number: int, value: bytes) -> bool | None:
    """Does the value change what the option says? None: it cannot be set."""
    with make(host) as sock:
        before = value_of(sock, level, number)
        if attempt(sock.setsockopt, level, number, value):
            return None
        return value_of(sock, level, number) != before


def settable(host: str) -> list:
    """Each option that can be set, before bind() or on a listener, with a value that changes it, if one does."""
    found = []
    for level, number in ((level, number) for level in LEVELS for number in NUMBERS):
        tried = {
            value: [changes(make, host, level, number, value) for make in (unbound, listening)] for value in VALUES
        }
        usable = [value for value, outcomes in tried.items() if any(outcome is not None for outcome in outcomes)]
        usable.sort(key=lambda value: True not in tried[value])
        if usable:
            found.append((level, number, usable[0].hex()))
    return found


def accepted_has(host: str, moment: str, level: int, number: int, value: str) -> dict | str:
    """What the accepted socket has when the option is set at this moment; or why there is no such socket."""
    with ExitStack() as closing:
        listener, epoll = closing.enter_context(unbound(host)), closing.enter_context(select.epoll())
        said = []

        def at(now: str) -> None:
            if now == moment:
                said.append(attempt(listener.setsockopt, level, number, bytes.fromhex(value)))

        at("before bind")
        listener.bind((host, 0))
        listener.listen()
        listener.setblocking(False)
        at("after listen")
        epoll.register(listener, select.EPOLLIN)
        epoll.poll(0)
        at("after adoption")
        closing.enter_context(connect(listener.getsockname()[:2], PATIENCE_SECONDS))
        if not epoll.poll(PATIENCE_SECONDS):
            return "nothing to accept"
        accepted = closing.enter_context(listener.accept()[0])
        return {"set": said[0]} | {
            f"{a_level}/{a_number}": value_of(accepted, a_level, a_number)
            for a_level in LEVELS
            for a_number in NUMBERS
            if a_number not in NOT_COMPARED.get(a_level, ())
        }


def accepted(host: str, moment: str, options: list) -> list:
    return [outcome_of(host, moment, *option) for option in options]


def acks_at_once(host: str) -> int:
    """TCP_QUICKACK of an accepted socket to which no data has come; it was turned off on the listener."""
    with listening(host) as listener, select.epoll() as epoll:
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        epoll.register(listener, select.EPOLLIN)
        epoll.poll(0)
        with socket.create_connection(listener.getsockname()[:2]):
            epoll.poll()
            with listener.accept()[0] as accepted:
                return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)


def outcome_of(host: str, moment: str, *option) -> dict | str:
    try:
        return accepted_has(host, moment, *option)
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"


def main() -> int:
    commands = Commands(0)
    while command := commands.next():
        method, *arguments = command
        say({"settable": settable, "accepted": accepted, "acks_at_once": acks_at_once}[method](*arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
