"""What a container lacks to run the lab, and the options of ``docker run`` that give it.

Trials on Linux 6.18 with Docker 20.10 showed: the lab needs four capabilities, and a writable /proc/sys. Docker's
seccomp profile may stay. Its read-only /sys may stay, too, because the hosts of a testbed mount a /sys of their own. No
device, cgroup or BPF file system is needed, and BTF is in every container. ``--privileged`` gives all that, and more.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARKS = {Path("/.dockerenv"): "Docker", Path("/run/.containerenv"): "Podman"}  # the file that each engine leaves
# Inode numbers of the machine's first namespaces (Linux include/linux/proc_ns.h, PROC_PID_INIT_INO and its like).
FIRST = {
    Path("/proc/self/ns/pid"): 0xEFFFFFFC,
    Path("/proc/self/ns/uts"): 0xEFFFFFFE,
    Path("/proc/self/ns/ipc"): 0xEFFFFFFF,
}
PRIVILEGED = "--privileged"


def engine() -> str | None:
    """The engine of this container; None elsewhere, also in a virtual machine that was made from a container image."""
    if all(namespace.stat().st_ino == first for namespace, first in FIRST.items()):
        return None
    return next((name for mark, name in MARKS.items() if mark.exists()), None)


@dataclass(frozen=True)
class Need:
    """Something that a container has only where an option asks for it."""

    name: str
    purpose: str
    option: str
    is_there: Callable[[], bool]


def _has_capability(number: int) -> bool:
    """Whether this process has a capability in effect (proc(5), CapEff; numbers as in <linux/capability.h>)."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective, 16) >> number & 1)


def _capability(name: str, number: int, purpose: str) -> Need:
    return Need(f"CAP_{name}", purpose, f"--cap-add {name}", lambda: _has_capability(number))


def _is_unconfined() -> bool:
    """Whether no AppArmor profile confines this process. Docker's denies every mount, even with all capabilities."""
    try:
        return Path("/proc/self/attr/apparmor/current").read_text().strip("\0\n") in ("unconfined", "")
    except OSError:  # no AppArmor here
        return True


NEEDS = (
    _capability("SYS_ADMIN", 21, "namespaces, mounts, BPF and perf"),
    _capability("NET_ADMIN", 12, "links, their queues, and tc filters"),
    _capability("SYS_PTRACE", 19, "to see what a server of another user waits for"),
    _capability("SYS_NICE", 23, "the load generator, to send a request when it is due"),
    Need(
        "writable /proc/sys",
        "settings of the testbed's own network",
        "--security-opt systempaths=unconfined",
        lambda: not os.statvfs("/proc/sys").f_flag & os.ST_RDONLY,
    ),
    Need("no AppArmor profile", "mounts", "--security-opt apparmor=unconfined", _is_unconfined),
)


def lacking(needs: Sequence[Need] = NEEDS) -> list[Need]:
    """The needs that this container was not given; none outside of a container."""
    return [need for need in needs if not need.is_there()] if engine() else []


def options(needs: Sequence[Need]) -> str:
    """How to start a container that has these needs, in words."""
    return f"start the container with {PRIVILEGED}, or with {' '.join(need.option for need in needs)}"
