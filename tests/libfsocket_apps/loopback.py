"""Clients over loopback, where the CPU that sends a SYN handles it, too."""

import fcntl
import os
import socket
import struct
import termios
import time
from contextlib import contextmanager

DEADLINE_SECONDS = 10 * float(os.environ.get("FASTSOCKET_TEST_PATIENCE", "1"))  # tests/harness/patience.py


@contextmanager
def on_cpus(cpus):
    """The calling thread, and what it starts meanwhile, on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def unacknowledged(connection: socket.socket) -> int:
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]


def connect(address: tuple[str, int], seconds: float = DEADLINE_SECONDS) -> socket.socket:
    """A connection that has reached the accept queue: only there does the kernel acknowledge data.

    connect() itself returns one segment earlier.
    """
    connection = socket.create_connection(address, timeout=seconds)
    connection.sendall(b"\n")
    deadline = time.monotonic() + seconds
    while unacknowledged(connection):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address} does not acknowledge")
        os.sched_yield()
    return connection
