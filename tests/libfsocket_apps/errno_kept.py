"""Prints [call, errno after it] for calls that succeed: the errno of before, as POSIX allows and applications expect.

Started on one CPU, so that its watching of the listener adopts a clone.
"""

import ctypes
import os
import select
import socket

from lines import say
from loopback import connect

LIBC = ctypes.CDLL(None, use_errno=True)
ERRNO_BEFORE = 77
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3


class Event(ctypes.Structure):
    _pack_ = 1 if os.uname().machine == "x86_64" else 8
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


def succeed(name: str, *arguments) -> int:
    ctypes.set_errno(ERRNO_BEFORE)
    result = getattr(LIBC, name)(*arguments)
    say([name, "failed" if result == -1 else "succeeded", ctypes.get_errno()])
    return result


def accept_twice(descriptor: int) -> None:
    succeed("close", succeed("accept", descriptor, None, None))
    succeed("close", succeed("accept4", descriptor, None, None, socket.SOCK_NONBLOCK))


def main() -> None:
    listener = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(("127.0.0.1", 0))
    epoll, event = select.epoll(), Event(select.EPOLLIN, 0)
    descriptor = listener.fileno()
    succeed("listen", descriptor, 16)
    clients = [connect(listener.getsockname()) for _ in range(4)]
    accept_twice(descriptor)
    succeed("epoll_ctl", epoll.fileno(), EPOLL_CTL_ADD, descriptor, ctypes.byref(event))
    clients += [connect(listener.getsockname()) for _ in range(2)]
    accept_twice(descriptor)  # from the clone
    accept_twice(descriptor)  # from the listener, after the clone had nothing
    for operation in (EPOLL_CTL_MOD, EPOLL_CTL_DEL):
        succeed("epoll_ctl", epoll.fileno(), operation, descriptor, ctypes.byref(event))
    succeed("dup2", 0, descriptor)
    succeed("close", listener.detach())


if __name__ == "__main__":
    main()
