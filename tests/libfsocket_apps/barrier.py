"""Waiting for the kernel, not for time: what it does behind a call's back has happened when the next call is made."""

import fcntl
import os
import signal
import socket
import termios
import time
from contextlib import contextmanager

from descriptors import state_of
from libc import LOOPBACK

BLOCKS_AFTER_SECONDS = 0.002
ARRIVAL_SECONDS = 0.5
SENDING = (1, 8)  # TCP_ESTABLISHED, TCP_CLOSE_WAIT
FIN_IS_ON_ITS_WAY = (4, 9, 11)  # TCP_FIN_WAIT1, TCP_LAST_ACK, TCP_CLOSING
SEGMENTS_PER_EXCHANGE = 4  # SYN, SYN-ACK, ACK; or FIN and ACK in both directions
SIOCOUTQNSD = 0x894B


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
            self._exchange()
            return
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


def wait_until_acknowledged(descriptor: int) -> None:
    """What was sent before. Until then Nagle's algorithm holds back what comes next."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while _unacknowledged(descriptor) and time.monotonic() < deadline:
        os.sched_yield()


def _unacknowledged(descriptor: int) -> bool:
    """Whether data has left, of which the peer has told nothing."""
    if state_of(descriptor) not in SENDING:
        return False
    return fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)) != fcntl.ioctl(descriptor, SIOCOUTQNSD, bytes(4))


@contextmanager
def interrupted():
    """A call that blocks answers EINTR; again and again, because the first signal may come before the call."""
    signal.setitimer(signal.ITIMER_REAL, BLOCKS_AFTER_SECONDS, BLOCKS_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
