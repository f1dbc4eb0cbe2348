"""The Debian packages that the lab needs, by their purpose.

This module uses the standard library only: it works on a bare machine, and in the Dockerfile, where
``python3 -m setup.packages NEED ...`` prints the packages' names.
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
    """A Debian package. Its command, file or module shows that the package, or an equivalent, is installed."""

    name: str
    command: str = ""
    file: str = ""
    module: str = ""
    service: str = ""  # the name of its systemd service, where that is not the package's name

    def is_there(self) -> bool:
        if self.module:
            return importlib.util.find_spec(self.module) is not None
        return Path(self.file).exists() if self.file else shutil.which(self.command) is not None


def literals(path: Path, *names: str) -> Iterator[tuple[str, Any]]:
    """The literals that a Python file assigns to these names, each with its name.

    The file is parsed and not imported: an import would need our libraries.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign):
            found = {target.id for target in node.targets if isinstance(target, ast.Name)}
            yield from ((name, ast.literal_eval(node.value)) for name in names if name in found)


def of_workloads(folder: Path = WORKLOADS) -> Iterator[Package]:
    """The packages that the classes in workloads/ name as their ``packages``."""
    for path in sorted(folder.glob("*.py")):
        for _, packages in literals(path, "packages"):
            yield from (Package(name, command) for command, name in packages.items())


def _debian() -> int:
    """The number of the Debian release; 12 where the system tells none. Another distribution gives its own number."""
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
# Further packages with which the library is tested.
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
# The package that reaches a load generator on another machine.
SSH = Package("openssh-client", command="ssh")
# Packages for guests. busybox must be static. Debian 12's QEMU brings virtiofsd; that of later releases does not.
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
