"""A pinned worker waits for its listener in each way, and says how the wait ended."""

import ctypes
import os
import select
import signal
import socket
import sys

from lines import say

LIBC = ctypes.CDLL(None)
MILLISECONDS = 300  # longer than a look at the listeners is away from the next one


def by_outer_epoll(inner: select.epoll, seconds: float | None) -> list:
    with select.epoll() as outer:
        outer.register(inner, select.EPOLLIN)
        return outer.poll(seconds)


def by_poll(descriptor: int, seconds: float | None) -> list:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll(None if seconds is None else 1000 * seconds)


class Interrupted(Exception):
    pass


def interrupt(*_) -> None:
    raise Interrupted


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[2])})
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    ways = {
        "epoll_wait": epoll.poll,
        "epoll_wait around it": lambda seconds: by_outer_epoll(epoll, seconds),
        "poll around it": lambda seconds: by_poll(epoll.fileno(), seconds),
        "select around it": lambda seconds: select.select([epoll], [], [], seconds)[0],
        "poll": lambda seconds: by_poll(listener.fileno(), seconds),
        "select": lambda seconds: select.select([listener], [], [], seconds)[0],
    }
    for name, wait in ways.items():
        if sys.argv[1] == "until its time is over":
            say([name, len(wait(MILLISECONDS / 1000))])
        elif name not in ("poll", "select"):  # these look without fcntl()
            signal.signal(signal.SIGUSR1, interrupt)
            ctypes.c_int.in_dll(LIBC, "armed").value = 1
            try:
                wait(None)
            except Interrupted:
                say([name, "interrupted"])


main()
