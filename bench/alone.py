"""One run at a time. Two runs at once would take each other's CPU time, and spoil each other's numbers."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

SCOPE = "FASTSOCKET_LAB_SCOPE"  # environment variable: runs with different values may measure at the same time
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class NotAloneError(Exception):
    """Another run is measuring on this machine; the message names its process."""

    exit_status = 3


@contextmanager
def alone() -> Iterator[None]:
    """Hold a lock, so that no other run in this network namespace and SCOPE measures. Raises NotAloneError.

    The lock is an abstract Unix socket address (unix(7)). It is no file, and the kernel drops it when our process ends,
    even by SIGKILL.
    """
    address = f"\0fastsocket-lab:{os.environ.get(SCOPE, '')}"
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(address)
        except OSError as error:
            raise NotAloneError(
                f"another run is measuring here, process {_listener(address)}: wait until it ends, or give each run "
                f"CPUs of its own and another {SCOPE}"
            ) from error
        lock.listen()
        yield


def _listener(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address)
        except OSError:  # the other run is just beginning or ending
            return "not known"
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return str(_CREDENTIALS.unpack(credentials)[0])
