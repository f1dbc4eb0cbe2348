"""A network device in the network namespace of some process."""

import ctypes
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNET = 0x40000000
NAME = re.compile(r"(?!-)[^\s/:]{1,15}")  # dev_valid_name() in net/core/dev.c, and no option of a tool
_libc = ctypes.CDLL(None, use_errno=True)


class DeviceError(Exception):
    """There is no such device; the message names it."""

    exit_status = 2


class NamespaceError(Exception):
    """/sys does not show the device's namespace; the message says how to mend it."""

    exit_status = 3


def network_inode(process: int | str) -> int:
    """The inode number of the network namespace of a process, or of "self". Raises OSError."""
    return os.stat(f"/proc/{process}/ns/net").st_ino


def enter_network(descriptor: int) -> None:
    """The calling thread enters the network namespace that is open there (setns(2)). Raises OSError."""
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def network_of(process: int) -> Iterator[None]:
    """The calling thread, and what it starts, in the network namespace of a process (setns(2))."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{process}/ns/net") as other:
        enter_network(other.fileno())
        try:
            yield
        finally:
            enter_network(own.fileno())


@dataclass(frozen=True)
class Device:
    """By its name; process: whose network namespace it is in (None: the caller's own)."""

    name: str
    process: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def _proc(self) -> Path:
        return Path("/proc", str(self.process or "self"))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread, and what it starts, in the device's network namespace."""
        with network_of(self.process) if self.process else nullcontext():
            yield

    @property
    def index(self) -> int:
        """Its number in its namespace. Raises DeviceError."""
        absent = DeviceError(f"there is no network device {self.name}: ip link shows those that are")
        if not NAME.fullmatch(self.name):
            raise absent
        try:
            with self.inside():
                return socket.if_nametoindex(self.name)
        except OSError as error:
            raise absent from error

    @property
    def namespace(self) -> int:
        """The inode number of its network namespace."""
        return network_inode(self.process or "self")

    @property
    def sysfs(self) -> Path:
        """Its directory in sysfs. Raises DeviceError, or NamespaceError: sysfs shows the namespace of its mounter."""
        index, path = self.index, self._proc / "root/sys/class/net" / self.name
        try:
            if int((path / "ifindex").read_text()) == index:
                return path
        except OSError:
            pass
        raise NamespaceError(
            f"/sys shows another network namespace than that of {self.name}: mount -t sysfs sysfs "
            "/sys in a mount namespace of its own, as ip netns exec does"
        )

    def queue_files(self, name: str) -> list[Path]:
        """This file of each of its queues, in order: "rps_cpus", "rps_flow_cnt" (receive), "xps_cpus" (transmit)."""
        kind = "tx" if name.startswith("xps") else "rx"
        queues = sorted((self.sysfs / "queues").glob(f"{kind}-*"), key=lambda queue: int(queue.name[3:]))
        return [queue / name for queue in queues]
