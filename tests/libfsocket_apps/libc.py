"""libc by its dynamic symbols, as any program calls it: what the call returned, or the name of its errno."""

import ctypes
import errno
import os
import socket
import struct
import sys

Answer = int | str

LIBC = ctypes.CDLL(None, use_errno=True)
ERRNO_BEFORE = 77
ADDRESS_SIZE = 128
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}
LOOPBACK = {"inet": "127.0.0.1", "inet6": "::1"}
ANY = {"inet": "0.0.0.0", "inet6": "::"}


class Event(ctypes.Structure):
    """struct epoll_event; x86-64 packs it as 32-bit x86 does."""

    _pack_ = 1 if os.uname().machine == "x86_64" else 8
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


class Polled(ctypes.Structure):
    """struct pollfd."""

    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Timespec(ctypes.Structure):
    """struct timespec; struct timeval has the same shape."""

    _fields_ = [("seconds", ctypes.c_long), ("fraction", ctypes.c_long)]


def call(name: str, *arguments) -> Answer:
    """An errno that a successful call has touched is part of the answer."""
    ctypes.set_errno(ERRNO_BEFORE)
    result = getattr(LIBC, name)(*arguments)
    after = ctypes.get_errno()
    if result == -1:
        return errno.errorcode[after]
    return result if after == ERRNO_BEFORE else f"{result}, errno {after}"


def failed(answer: Answer) -> bool:
    return isinstance(answer, str)


def pack(family: str, host: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    packed = socket.inet_pton(FAMILIES[family], host)
    if family == "inet":
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, packed, 0)


def pack_unix(name: bytes) -> bytes:
    """struct sockaddr_un; without a name, the kernel chooses an abstract one."""
    return struct.pack("=H", socket.AF_UNIX) + name


def family_of(address: bytes) -> str | None:
    number = struct.unpack_from("=H", address)[0] if len(address) >= 2 else 0
    return next((name for name, family in FAMILIES.items() if family == number), None)


def port_of(address: bytes) -> int:
    return struct.unpack_from("!H", address, 2)[0] if family_of(address) in LOOPBACK else 0


def unpack(address: bytes) -> dict | str:
    """What a program may compare: the host, and the port or name under which the kernel numbers it."""
    family = family_of(address)
    if family == "unix":
        return {"unix": address[2:].hex()}
    if family is None:
        return address.hex()
    start = 4 if family == "inet" else 8
    length = 4 if family == "inet" else 16
    return {"host": socket.inet_ntop(FAMILIES[family], address[start : start + length]), "port": port_of(address)}


class AddressBuffer:
    """Where the kernel writes an address and its length."""

    def __init__(self, size: int = ADDRESS_SIZE):
        self._bytes = ctypes.create_string_buffer(ADDRESS_SIZE)
        self._size = ctypes.c_uint32(size)
        self.arguments = (self._bytes, ctypes.byref(self._size))

    def read(self) -> bytes:
        return self._bytes.raw[: self._size.value]


def name_of(descriptor: int, which: str = "getsockname") -> bytes | str:
    """The packed address, or the name of an errno."""
    buffer = AddressBuffer()
    answer = call(which, descriptor, *buffer.arguments)
    return answer if failed(answer) else buffer.read()


def option_bytes(descriptor: int, level: int, name: int, size: int) -> bytes | str:
    """The first bytes of an option, or the name of an errno."""
    value, length = ctypes.create_string_buffer(size), ctypes.c_uint32(size)
    answer = call("getsockopt", descriptor, level, name, value, ctypes.byref(length))
    return answer if failed(answer) else value.raw


def option_of(descriptor: int, level: int, name: int) -> Answer:
    """Of an option that is an integer, or as long as one."""
    value = option_bytes(descriptor, level, name, 8)
    return value if isinstance(value, str) else int.from_bytes(value, sys.byteorder)


def set_option(descriptor: int, level: int, name: int, value: int) -> Answer:
    return call("setsockopt", descriptor, level, name, ctypes.byref(ctypes.c_int(value)), 4)
