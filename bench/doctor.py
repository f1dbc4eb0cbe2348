"""What this machine can do, what is missing, and how to get it. Standard library only: it answers before set-up."""

import json
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import container
from bench.bootstrap import VENV, has_environment, needed_packages
from fastsocket.build import BuildError, bpf_object, build
from fastsocket.libbpf import BpfError, BpfObject
from fastsocket.steering import BACKENDS, Backend
from fastsocket.steering.program import SteeringProgram

DESCRIPTORS_NEEDED = 16384
REMEDIES = {
    "ethtool": "use a NIC whose driver takes rules with masked ports: ixgbe, txgbe, mlx5; the emulated NIC needs none",
    "cpumap": "run as root on Linux 5.18 or later with CONFIG_BPF_SYSCALL",
    "rfs": "run in the machine's first network namespace, not in a container, on a kernel with CONFIG_RPS",
}
INSTALL = "python3 lab.py --yes test installs it"


@dataclass(frozen=True)
class Check:
    """A question to the machine and its answer. Without a required one no sweep runs; others only cost a metric."""

    name: str
    ok: bool
    required: bool
    detail: str
    remedy: str  # empty where all is well


def checks() -> Iterator[Check]:
    """Ask everything, from the plain to the peculiar."""
    yield _check("root", os.geteuid() == 0, "namespaces, BPF and pinning need it", "run with sudo")
    for need in container.NEEDS if container.engine() else ():
        yield _check(f"{container.engine()}: {need.name}", need.is_there(), need.purpose, container.options([need]))
    for package in needed_packages():
        yield _check(f"package {package.name}", package.is_there(), package.command or package.file or package.module,
                     f"apt-get install {package.name}, or {INSTALL}")
    yield _check("python libraries", has_environment(), str(VENV), INSTALL)
    cpus = len(os.sched_getaffinity(0))
    yield _check("more than one CPU", cpus > 1, f"{cpus} usable", "give the machine more CPUs", required=False)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield _check("file descriptors", limit >= DESCRIPTORS_NEEDED, f"hard limit {limit}",
                 f"raise it to {DESCRIPTORS_NEEDED}: ulimit -Hn")
    yield _check("kernel BTF", Path("/sys/kernel/btf/vmlinux").exists(), "/sys/kernel/btf/vmlinux",
                 "boot a kernel with CONFIG_DEBUG_INFO_BTF, as Debian's are")
    yield _asked("namespaces, multi-queue veth and RPS", _try_network, "boot a kernel with CONFIG_VETH and CONFIG_RPS")
    yield _asked("SO_INCOMING_CPU", _try_incoming_cpu, "boot Linux 6.2 or later, or one with commit b261eda84ec1",
                 by_privilege=False)
    yield _asked("emulated NIC", _try_nic, "run as root on Linux 5.15 or later")
    yield _asked("locality probe", lambda: _try_probe("locality", "sock_recv_length"),
                 "boot Linux 6.3 or later with CONFIG_DEBUG_INFO_BTF", required=False)
    yield _asked("lock contention probe", lambda: _try_probe("contention", "contention_begin"),
                 "boot Linux 5.19 or later with CONFIG_DEBUG_INFO_BTF", required=False)
    for backend in BACKENDS:
        yield _asked(f"steering by {backend.name}", lambda: _try_backend(backend), REMEDIES[backend.name],
                     required=False, by_privilege=backend.name == "cpumap")


def _check(name: str, ok: bool, detail: str, remedy: str, required: bool = True) -> Check:
    return Check(name, ok, required, detail, "" if ok else remedy)


class _No(Exception):
    """The answer is no; the message says why."""


def _asked(name: str, ask: Callable[[], str], remedy: str, required: bool = True, by_privilege: bool = True) -> Check:
    """What takes privilege takes, in a container, first what that was not given."""
    if by_privilege and (missing := container.lacking()):
        remedy = container.options(missing)
    try:
        return _check(name, True, ask(), remedy, required)
    except (_No, BpfError, BuildError, OSError) as error:
        return _check(name, False, str(error).splitlines()[0], remedy, required)


def _try_network() -> str:
    script = ("mount --make-rprivate / && mount -t sysfs sysfs /sys && "
              "ip link add probe0 numrxqueues 2 numtxqueues 2 type veth peer name probe1 && "
              "echo 1 > /sys/class/net/probe0/queues/rx-1/rps_cpus")
    done = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode:
        raise _No(done.stderr.strip() or "refused")
    return "made and configured in a namespace of their own"


def _marked_listener(port: int, cpu: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, cpu)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    listener.setblocking(False)
    return listener


def _try_incoming_cpu() -> str:
    """Over loopback the sender's CPU handles the SYN: of two marked listeners, ours must get every connection."""
    affinity = os.sched_getaffinity(0)
    cpu = min(affinity)
    os.sched_setaffinity(0, {cpu})
    try:
        with _marked_listener(0, cpu) as ours, _marked_listener(ours.getsockname()[1], cpu + 1):
            for _ in range(8):
                with socket.create_connection(ours.getsockname()):
                    ours.accept()[0].close()
    except BlockingIOError:
        raise _No("the kernel ignores it among SO_REUSEPORT listeners") from None
    finally:
        os.sched_setaffinity(0, affinity)
    return "honoured among SO_REUSEPORT listeners"


def _try_nic() -> str:
    build()
    with SteeringProgram("emulated"):
        return "the steering program loads"


def _try_backend(backend: Backend) -> str:
    build()
    reason = backend.why_not(mode=backend.modes[-1])
    if reason:
        raise _No(reason)
    return f"can do {', '.join(backend.modes)}"


def _try_probe(name: str, program: str) -> str:
    build()
    with BpfObject(bpf_object(name)) as probe:
        probe.load()
        probe.attach(program)
    return "loads and attaches"


def main(arguments: list[str]) -> int:
    """Print all checks; 1 when a required one fails."""
    found = list(checks())
    if "--json" in arguments:
        print(json.dumps([asdict(check) for check in found], indent=2))
    else:
        print("\n".join(map(_line, found)))
    return int(any(check.required and not check.ok for check in found))


def _line(check: Check) -> str:
    verdict = "ok     " if check.ok else "MISSING" if check.required else "without"
    return f"{verdict}  {check.name}: {check.detail}" + (f"\n         -> {check.remedy}" if check.remedy else "")
