"""Describe the machine and the software with which a result was measured."""

import os
import platform
import re
import shutil
import subprocess
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from setup import container
from setup.kernel_settings import UNKNOWN, read

LIBRARIES = ("mininet", "pyroute2", "pandas", "scipy")
ROOT = Path(__file__).resolve().parent.parent
CPUS = Path("/sys/devices/system/cpu")
CODE = ("bench", "experiments", "fastsocket", "probes", "records", "setup", "topologies", "workloads")
CODE_SUFFIXES = (".py", ".toml", ".c", ".h", ".def", ".ld", ".lua")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else UNKNOWN


def _of_cpu(name: str) -> str:
    return _first(rf"^{name}\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text())


def _mitigations() -> str:
    """The kernel's mitigations of the CPU's flaws, which make system calls slower, and the flaws that stay open."""
    told = {file.name: read(file) for file in sorted((CPUS / "vulnerabilities").glob("*"))}
    return "; ".join(f"{flaw}: {said}" for flaw, said in told.items() if said != "Not affected") or "none"


def _frequency() -> str:
    """The limits of the CPU's frequency, and the driver and governor that set it. Virtual machines do not know them."""
    policy = CPUS / "cpufreq" / "policy0"
    if not policy.exists():
        return f"{_of_cpu('cpu MHz').partition('.')[0]} MHz; no cpufreq"
    least, most = (read(policy / f"scaling_{which}_freq").removesuffix("000") for which in ("min", "max"))
    return f"{least} to {most} MHz, {read(policy / 'scaling_driver')}, governor {read(policy / 'scaling_governor')}"


def _nic() -> str:
    """The machine's NICs. A run measures with emulated ones, but the machine's other traffic comes through these."""
    nics = [path for path in sorted(Path("/sys/class/net").glob("*")) if (path / "device").exists()]
    return (
        ", ".join(
            f"{path.name}: {(path / 'device/driver').resolve().name}, {len(list(path.glob('queues/rx-*')))} queues"
            for path in nics
        )
        or "none"
    )


def _virtual_machine() -> str:
    if " hypervisor" not in Path("/proc/cpuinfo").read_text():
        return "no"
    said = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    product = read(Path("/sys/class/dmi/id/product_name"))
    return f"{_first(r'^Hypervisor vendor:(.*)$', said)}, product {product}"


def _guest() -> str:
    """How lab.py guest runs this machine, or "no". A guest's kernel command line says it (guest/machine.py)."""
    words = Path("/proc/cmdline").read_text().split()
    how = next((word.partition("=")[2] for word in words if word.startswith("fastsocket_lab_guest=")), "")
    said = {"tcg": "emulated by QEMU, so no timing in it means anything", "kvm": "KVM, started by lab.py guest"}
    return said.get(how, "no")


def fingerprint() -> dict[str, str]:
    """The properties of the machine that can change a result, by name; without the kernel's settings."""
    return {
        "kernel": platform.release(),
        "kernel built": platform.version(),
        "architecture": platform.machine(),
        "cpu": _of_cpu("model name"),
        "microcode": _of_cpu("microcode"),
        "cpus": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "sibling threads in use": {"0": "no", "1": "yes"}.get(read(CPUS / "smt" / "active"), UNKNOWN),
        "NUMA nodes": f"{len(list(Path('/sys/devices/system/node').glob('node*')))}",
        "frequency": _frequency(),
        "idle states": f"{read(CPUS / 'cpuidle/current_driver')}, {read(CPUS / 'cpuidle/current_governor_ro')}",
        "clock": read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "memory": _first(r"^MemTotal:\s*(.*)$", Path("/proc/meminfo").read_text()),
        "huge pages": read(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "NIC": _nic(),
        "virtual machine": _virtual_machine(),
        "guest": _guest(),
        "container": f"{container.engine()}, {platform.node()}" if container.engine() else "no",
        "mitigations": _mitigations(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _commit() -> str:
    """The commit of the checkout; in the container image, the revision that its build was given."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return os.environ.get("FASTSOCKET_LAB_REVISION", "unknown")
    said = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def code() -> str:
    """The commit, and a digest of all files that a trial may run: equal for two checkouts that measure the same."""
    listed = (path for folder in CODE for path in sorted((ROOT / folder).rglob("*")) if path.suffix in CODE_SUFFIXES)
    digest = sha256()
    for path in listed:
        if "build" not in path.relative_to(ROOT).parts:
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return f"{_commit()}, files {digest.hexdigest()[:8]}"


def versions() -> dict[str, str]:
    """The versions of this project and of the libraries that shape a measurement. Servers and tools add their own."""
    return {
        "fastsocket-lab": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
