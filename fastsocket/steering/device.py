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
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # on all machines: include/uapi/asm-generic/unistd.h
CLOEXEC, FSCONFIG_CMD_CREATE = 1, 6  # <linux/mount.h>
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
    _checked(_libc.setns(descriptor, CLONE_NEWNET))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextmanager
def network_of(process: int) -> Iterator[None]:
    """The calling thread, and what it starts, in the network namespace of a process (setns(2))."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{process}/ns/net") as other:
        enter_network(other.fileno())
        try:
            yield
        finally:
            enter_network(own.fileno())


@contextmanager
def sysfs_of(process: int) -> Iterator[Path]:
    """A sysfs that shows the network namespace of a process, mounted nowhere (fsopen(2), fsmount(2)): what the process
    has at /sys may be anything. Raises OSError."""
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
    """By its name; process: whose network namespace it is in (None: the caller's own). mounted: where sysfs shows that
    namespace (None: at the process's /sys)."""

    name: str
    process: int | None = None
    mounted: Path | None = None

    def __str__(self) -> str:
        return self.name

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
        """This file of each of its queues, in order: "rps_cpus", "rps_flow_cnt" (receive), "xps_cpus" (transmit)."""
        kind = "tx" if name.startswith("xps") else "rx"
        queues = sorted((self.sysfs / "queues").glob(f"{kind}-*"), key=lambda queue: int(queue.name[3:]))
        return [queue / name for queue in queues]
