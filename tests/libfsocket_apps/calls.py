"""Socket calls as data: each line of stdin is a list of [call, argument, …]; what they returned goes to stdout.

Every list runs in a process of its own, whose descriptors 3 and up are free at the start.
"""

import ctypes
import errno
import os
import select
import socket
import sys
import traceback
from contextlib import contextmanager

from lines import Commands, say
from loopback import connect

LIBC = ctypes.CDLL(None, use_errno=True)
BACKLOG = 64
# x86-64 and 64-bit ARM, which has dup3() alone.
NUMBERS = {
    "accept": (43, 202),
    "connect": (42, 203),
    "dup": (32, 23),
    "dup2": (33, 24),
    "epoll_ctl": (233, 21),
    "fcntl": (72, 25),
    "prctl": (157, 167),
    "setsockopt": (54, 208),
    "shutdown": (48, 210),
    "unshare": (272, 97),
}
MACHINE = ["x86_64", "aarch64"].index(os.uname().machine)
TYPES = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
}
ANYWHERE = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: ""}


@contextmanager
def borrowed(descriptor: int):
    borrower = socket.socket(fileno=descriptor)
    try:
        yield borrower
    finally:
        borrower.detach()


class Calls:
    """Each returns what the call behind it returned: mostly the new descriptor."""

    def __init__(self):
        self._epolls: list[select.epoll] = []  # would be closed with their Python objects

    def socket(self, kind: str) -> int:
        family, type_ = TYPES[kind]
        return socket.socket(family, type_ | socket.SOCK_NONBLOCK).detach()

    def bind(self, descriptor: int, like: int | None = None) -> None:
        """To a free port, or to that of another."""
        with borrowed(descriptor) as own:
            if like is None:
                own.bind(ANYWHERE[own.family])
                return
            with borrowed(like) as other:
                if own.family != other.family:
                    raise OSError(errno.EAFNOSUPPORT, "Python would not even ask")
                own.bind(other.getsockname())

    def listen(self, descriptor: int) -> None:
        with borrowed(descriptor) as own:
            own.listen(BACKLOG)

    def listener(self) -> int:
        descriptor = self.socket("tcp")
        self.bind(descriptor)
        self.listen(descriptor)
        return descriptor

    def set_option(self, descriptor: int, name: str) -> None:
        with borrowed(descriptor) as own:
            own.setsockopt(socket.SOL_SOCKET, getattr(socket, name), 1)

    def get_option(self, descriptor: int, name: str) -> int:
        with borrowed(descriptor) as own:
            return own.getsockopt(socket.SOL_SOCKET, getattr(socket, name))

    def rebind(self, descriptor: int) -> None:
        """Close it, then bind a new socket, with SO_REUSEADDR, where it was: the same descriptor again."""
        with borrowed(descriptor) as old:
            address = old.getsockname()
        os.close(descriptor)
        with borrowed(self.socket("tcp")) as new:
            new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            new.bind(address)

    def same_name(self, descriptor: int, other: int) -> bool:
        with borrowed(descriptor) as one, borrowed(other) as two:
            return one.getsockname() == two.getsockname()

    def connect(self, descriptor: int) -> int:
        """A new TCP socket, to the address of this one."""
        with borrowed(descriptor) as listener:
            if listener.family == socket.AF_UNIX:
                raise OSError(errno.EAFNOSUPPORT, "no TCP over Unix sockets")
            return connect(listener.getsockname()[:2]).detach()

    def accept(self, descriptor: int) -> int:
        with borrowed(descriptor) as listener:
            return listener.accept()[0].detach()

    def epoll(self) -> int:
        self._epolls.append(select.epoll())
        return self._epolls[-1].fileno()

    def _epoll(self, descriptor: int) -> select.epoll:
        self._epolls.append(select.epoll.fromfd(descriptor))
        return self._epolls[-1]

    def watch(self, epoll: int, descriptor: int) -> None:
        self._epoll(epoll).register(descriptor, select.EPOLLIN)

    def modify(self, epoll: int, descriptor: int, events: int) -> None:
        self._epoll(epoll).modify(descriptor, events)

    def wait(self, epoll: int) -> list[tuple[int, int]]:
        return self._epoll(epoll).poll(0)

    def unwatch(self, epoll: int, descriptor: int) -> None:
        self._epoll(epoll).unregister(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def duplicate(self, descriptor: int) -> int:
        return os.dup(descriptor)

    def close_up(self, first: int, last: int) -> None:
        os.closerange(first, last + 1)

    def open(self) -> int:
        return os.open("/dev/null", os.O_RDONLY)

    def replace(self, descriptor: int, inheritable: bool) -> int:
        """By dup2() or dup3(), with something that is no listener."""
        return os.dup2(0, descriptor, inheritable)

    def by_number(self, name: str, *arguments) -> int:
        """By syscall(2). A string is memory that an argument points to, in hexadecimal."""
        given = [
            ctypes.create_string_buffer(bytes.fromhex(it), len(it) // 2) if isinstance(it, str) else ctypes.c_long(it)
            for it in arguments
        ]
        LIBC.syscall.restype = ctypes.c_long
        result = LIBC.syscall(ctypes.c_long(NUMBERS[name][MACHINE]), *given)
        if result < 0:
            raise OSError(ctypes.get_errno(), name)
        return result

    def all_descriptors(self) -> list[int]:
        return sorted(int(name) for name in os.listdir("/proc/self/fd"))

    def descriptors(self) -> list[int]:
        """The application's own: the clones are above."""
        return [descriptor for descriptor in self.all_descriptors() if descriptor < 512]


def outcome(calls: Calls, name: str, *arguments):
    try:
        return getattr(calls, name)(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def run(steps: list) -> None:
    """In a child that must not get back into main()."""
    status = 1
    try:
        calls = Calls()
        say([outcome(calls, *step) for step in steps])
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> int:
    commands = Commands(0)
    while steps := commands.next():
        child = os.fork()
        if not child:
            run(steps)
        if os.waitpid(child, 0)[1]:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
