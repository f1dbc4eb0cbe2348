"""The Debian packages that the lab needs, by what they are needed for.

Standard library alone: it answers on a bare machine, and in the Dockerfile, where
``python3 -m setup.packages NEED ...`` prints their names.
"""

import ast
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKLOADS = Path(__file__).resolve().parent.parent / "workloads"


@dataclass(frozen=True)
class Package:
    """A Debian package. Its command, file or module shows that it, or something like it, is installed."""

    name: str
    command: str = ""
    file: str = ""
    module: str = ""
    service: str = ""  # of systemd, where its name is not the package's

    def is_there(self) -> bool:
        if self.module:
            return importlib.util.find_spec(self.module) is not None
        return Path(self.file).exists() if self.file else shutil.which(self.command) is not None


def literals(path: Path, *names: str) -> Iterator[tuple[str, Any]]:
    """What a file of Python assigns to these names. It is read, not imported: an import would need our libraries."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign):
            found = {target.id for target in node.targets if isinstance(target, ast.Name)}
            yield from ((name, ast.literal_eval(node.value)) for name in names if name in found)


def of_workloads(folder: Path = WORKLOADS) -> Iterator[Package]:
    """The ``packages`` of each class in workloads/."""
    for path in sorted(folder.glob("*.py")):
        for _, packages in literals(path, "packages"):
            yield from (Package(name, command) for command, name in packages.items())


def _debian() -> int:
    """The release of Debian; on another distribution, of the Debian closest to it."""
    try:
        return int(platform.freedesktop_os_release().get("VERSION_ID", "12").partition(".")[0])
    except OSError:
        return 12


ENVIRONMENT = (Package("python3-venv", module="ensurepip"),)
BUILDING = (
    *ENVIRONMENT,
    Package("gcc", command="gcc"),
    Package("libc6-dev", file="/usr/include/stdio.h"),
    Package("make", command="make"),
    Package("clang", command="clang"),
    Package("libbpf-dev", file="/usr/include/bpf/bpf_helpers.h"),
)
MEASURING = (
    Package("iproute2", command="ip"),
    Package("ethtool", command="ethtool"),
    Package("mininet", command="mnexec"),
    Package("net-tools", command="ifconfig"),
    Package("linux-perf", command="perf"),
    *dict.fromkeys(of_workloads()),
)
# What else the library is tested with.
TESTING = (
    Package("nodejs", command="node"),
    Package("chromium", command="chromium"),
    Package("strace", command="strace"),
    Package("procps", command="sysctl"),
    Package("openssl", command="openssl"),
    Package("apache2-bin", command="apache2"),
    Package("h2o", command="h2o"),
    Package("man-db", command="man"),
    Package("openssh-server", command="sshd", service="ssh"),
)
# What reaches a load generator on another machine.
SSH = Package("openssh-client", command="ssh")
# What guests run under. Only a static busybox is of use. Debian 12's QEMU brings virtiofsd; later ones do not.
VIRTIOFSD = "/usr/libexec/virtiofsd"
GUEST = (
    Package("qemu-system-x86", command="qemu-system-x86_64"),
    Package("busybox-static", file="/var/lib/dpkg/info/busybox-static.list"),
    Package("kmod", command="depmod"),
    *([Package("virtiofsd", file=VIRTIOFSD)] if _debian() > 12 else []),
)
NEEDS = {"building": BUILDING, "measuring": MEASURING, "testing": TESTING}

if __name__ == "__main__":
    print(*(package.name for need in sys.argv[1:] for package in NEEDS[need]))
