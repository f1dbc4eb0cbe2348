"""The Debian packages that the lab needs, by what they are needed for.

``python3 -m bench.packages NEED ...`` prints their names, for the Dockerfile.
"""

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A Debian package, and the command or file by which we know that it, or its like, is there."""

    name: str
    command: str = ""
    file: str = ""
    module: str = ""
    service: str = ""  # that Debian would start at every boot; the lab starts servers itself

    def is_there(self) -> bool:
        if self.module:
            return importlib.util.find_spec(self.module) is not None
        return Path(self.file).exists() if self.file else shutil.which(self.command) is not None


def _debian() -> int:
    """The release of the distribution, or of the Debian that it is like to."""
    try:
        return int(platform.freedesktop_os_release().get("VERSION_ID", "12").partition(".")[0])
    except OSError:
        return 12


BUILDING = (
    Package("python3-venv", module="ensurepip"),
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
    Package("nginx", command="nginx", service="nginx"),
    Package("wrk", command="wrk"),
    Package("haproxy", command="haproxy", service="haproxy"),
    Package("redis-server", command="redis-server", service="redis-server"),
    Package("redis-tools", command="redis-benchmark"),
    Package("lighttpd", command="lighttpd", service="lighttpd"),
    Package("memcached", command="memcached", service="memcached"),
    Package("libmemcached-tools", command="memcaslap"),
    Package("linux-perf", command="perf"),
)
# What else the library is tested with.
TESTING = (
    Package("nodejs", command="node"),
    Package("chromium", command="chromium"),
)
# What guests run under. Only a static busybox is of use; virtiofsd comes with Debian 12's QEMU, and by itself since.
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
