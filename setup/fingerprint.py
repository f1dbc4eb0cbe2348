"""The machine and the software that a result was got with."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from setup import container

LIBRARIES = ("mininet", "pyroute2", "pandas", "scipy")
ROOT = Path(__file__).resolve().parent.parent


def _first(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def _mitigations() -> str:
    """Whether the kernel pays for the CPU's flaws, which makes system calls dearer."""
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    active = [file.name for file in sorted(folder.glob("*")) if file.read_text().startswith("Mitigation")]
    return ", ".join(active) or "none active"


def _guest() -> str:
    """Guests of lab.py say on their command line what runs them (guest/machine.py)."""
    words = Path("/proc/cmdline").read_text().split()
    how = next((word.partition("=")[2] for word in words if word.startswith("fastsocket_lab_guest=")), "")
    said = {"tcg": "emulated by QEMU, so no timing in it means anything", "kvm": "KVM, started by lab.py guest"}
    return said.get(how, "no")


def fingerprint() -> dict[str, str]:
    """What of the machine can change a result."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _first(r"^model name\s*:\s*(.*)$", "/proc/cpuinfo"),
        "cpus": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "memory": _first(r"^MemTotal:\s*(.*)$", "/proc/meminfo"),
        "virtual machine": "yes" if " hypervisor" in Path("/proc/cpuinfo").read_text() else "no",
        "guest": _guest(),
        "container": f"{container.engine()}, {platform.node()}" if container.engine() else "no",
        "mitigations": _mitigations(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _commit() -> str:
    """Of the checkout, or what the image was told that it was built from."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return os.environ.get("FASTSOCKET_LAB_REVISION", "unknown")
    said = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def versions() -> dict[str, str]:
    """Of this project and the libraries that shape a measurement; servers and tools add their own."""
    return {
        "fastsocket-lab": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
