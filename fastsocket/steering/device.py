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
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # system call numbers on all machines: include/uapi/asm-generic/unistd.h
CLOEXEC, FSCONFIG_CMD_CREATE = 1, 6  # <linux/mount.h>
NAME = re.compile(r"(?!-)[^\s/:]{1,15}")  # as dev_valid_name() in net/core/dev.c; a dash would begin a tool's option
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
    """Move the calling thread into the network namespace that this descriptor refers to (setns(2)). Raises OSError."""
    _checked(_libc.setns(descriptor, CLONE_NEWNET))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextmanager
def network_of(process: int) -> Iterator[None]:
    """Put the calling thread, and what it starts, into a process's network namespace for the with block (setns(2))."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{process}/ns/net") as other:
        enter_network(other.fileno())
        try:
            yield
        finally:
            enter_network(own.fileno())


@contextmanager
def sysfs_of(process: int) -> Iterator[Path]:
    """A new sysfs that shows the network namespace of a process, mounted at no path (fsopen(2), fsmount(2)).

    The process's own /sys is not used, because it may be any file system. Raises OSError.
    """
    with network_of(process):
        context = _checked(_libc.syscall(FSOPEN, b"sysfs", CLOEXEC))
        try:
            _checked(_libc.syscall(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0))
            mount = _checked(_libc.syscall(FSMOUNT, context, CLOEXEC, 0))
        finally:
            os.close(context)
    try:
        yield Path("/proc/self/fd", str(mount))
    finally:
        os.close(mount)


@dataclass(frozen=True)
class Device:
    """A network device, known by its name and its network namespace.

    process: a process in that network namespace (None: the caller). mounted: where sysfs shows that namespace (None: at
    the process's /sys).
    """

    name: str
    process: int | None = None
    mounted: Path | None = None

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Put the calling thread, and what it starts, into the device's network namespace for the with block."""
        with network_of(self.process) if self.process else nullcontext():
            yield

    @property
    def index(self) -> int:
        """The device's number in its network namespace. Raises DeviceError."""
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
        """The inode number of the device's network namespace."""
        return network_inode(self.process or "self")

    @property
    def sysfs(self) -> Path:
        """The device's directory in sysfs. Raises DeviceError.

        Raises NamespaceError where this sysfs shows another network namespace: it shows that of the process that
        mounted it.
        """
        root = self.mounted or Path("/proc", str(self.process or "self"), "root/sys")
        index, path = self.index, root / "class/net" / self.name
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
        """This file of each queue, in the queues' order. name: "rps_cpus", "rps_flow_cnt" or "xps_cpus" (transmit)."""
        kind = "tx" if name.startswith("xps") else "rx"
        queues = sorted((self.sysfs / "queues").glob(f"{kind}-*"), key=lambda queue: int(queue.name[3:]))
        return [queue / name for queue in queues]
