"""One run at a time: two would take each other's CPU time, and neither would measure anything."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

SCOPE = "FASTSOCKET_LAB_SCOPE"  # in the environment: runs with different ones may measure at the same time
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class NotAloneError(Exception):
    """Another run measures here; the message names its process."""

    exit_status = 3


@contextmanager
def alone() -> Iterator[None]:
    """Meanwhile no other run of this network namespace and scope measures. Raises NotAloneError.

    The lock is an abstract address (unix(7)): it is no file, and the kernel drops it when our process ends, even by
    SIGKILL.
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
        except OSError:  # it is just beginning or ending
            return "not known"
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return str(_CREDENTIALS.unpack(credentials)[0])
