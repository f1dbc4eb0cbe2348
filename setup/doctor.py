"""What this machine can do, what is missing, and how to get it. Standard library only, so it works before set-up."""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from fastsocket import reads
from fastsocket.build import BuildError, build
from fastsocket.libbpf import BpfError
from fastsocket.refusal import Cause
from fastsocket.steering import BACKENDS, Backend
from fastsocket.steering.program import NETWORKING, SteeringProgram
from probes.trial import ContentionProbe, LocalityProbe
from setup import container, peers
from setup.bootstrap import ROOT, VENV, VENV_PYTHON, has_environment, needed_packages

DESCRIPTORS_NEEDED = 16384
INSTALL = "python3 lab.py --yes test installs it"
PORT_RANGE = 51  # IP_LOCAL_PORT_RANGE in <linux/in.h>, for which Python 3.11 has no name
PORT_TRIES = 20  # another process may take the port first, so there are several tries


@dataclass(frozen=True)
class Check:
    """A question to the machine, and its answer. required: no sweep runs without it. Others only cost a metric."""

    name: str
    ok: bool
    required: bool
    detail: str
    remedy: str  # empty where all is well
    log: list[str] = field(default_factory=list)  # what libbpf and the verifier wrote, where they refused


def checks() -> Iterator[Check]:
    """Ask all questions, the general ones first, and yield the checks."""
    yield _check("root", os.geteuid() == 0, "namespaces, BPF and pinning need it", "run with sudo")
    for need in container.NEEDS if container.engine() else ():
        yield _check(f"{container.engine()}: {need.name}", need.is_there(), need.purpose, container.options([need]))
    packages = needed_packages()
    for package in packages:
        yield _check(
            f"package {package.name}",
            package.is_there(),
            package.command or package.file or package.module,
            f"apt-get install {package.name}, or {INSTALL}",
        )
    for part in [part for part in peers.everything() if part not in packages]:
        remedy = f"python3 lab.py sweep --workload {peers.first_with(part)} asks whether to install it"
        yield _check(f"peer {part.name}", part.is_there(), part.command, remedy, required=False)
    yield _check("python libraries", has_environment(), str(VENV), INSTALL)
    cpus = len(os.sched_getaffinity(0))
    yield _check("more than one CPU", cpus > 1, f"{cpus} usable", "give the machine more CPUs", required=False)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield _check(
        "file descriptors",
        limit >= DESCRIPTORS_NEEDED,
        f"hard limit {limit}",
        f"raise it to {DESCRIPTORS_NEEDED}: ulimit -Hn",
    )
    yield _check(
        "kernel BTF",
        Path("/sys/kernel/btf/vmlinux").exists(),
        "/sys/kernel/btf/vmlinux",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF, as Debian's are",
    )
    yield _asked("namespaces, multi-queue veth and RPS", _try_network, "boot a kernel with CONFIG_VETH and CONFIG_RPS")
    yield _asked("SO_INCOMING_CPU", _try_incoming_cpu, since("6.2", "b261eda84ec1"), by_privilege=False)
    yield _asked(
        "IP_LOCAL_PORT_RANGE",
        _try_port_range,
        f"for Receive Flow Deliver {since('6.3', '91d0b78c5177')}",
        required=False,
        by_privilege=False,
    )
    yield _asked("emulated NIC", _try_nic, NETWORKING)
    yield _asked("threads for the emulated NIC", _try_threads, "lab.py takes --nic rps instead", required=False)
    yield _asked("locality probe", _try_locality, since("6.3", "6e6eda44b939"), required=False)
    yield _asked("lock contention probe", _try_contention, since("5.19", "16edd9b511a1"), required=False)
    for backend in BACKENDS:
        yield _asked(
            f"steering by {backend.name}",
            partial(_try_backend, backend),
            backend.remedy,
            required=False,
            by_privilege=backend.needs_privilege,
        )


def since(version: str, commit: str) -> str:
    """The remedy where a kernel lacks a feature. Distributions backport such features: Debian's 6.1 has two of them."""
    return f"boot Linux {version} or later, or a kernel with a backport of commit {commit}"


def _check(name: str, ok: bool, detail: str, remedy: str, required: bool = True) -> Check:
    return Check(name, ok, required, detail, "" if ok else remedy)


class _No(Exception):
    """The answer to a question is no; the message says why."""


class _NotAllowed(_No):
    """The answer is no, because it takes privileges."""


def _asked(name: str, ask: Callable[[], str], remedy: str, required: bool = True, by_privilege: bool = True) -> Check:
    """Ask a question, and make a check of the answer.

    In a container that lacks privileges, the remedy is to give it these.
    """
    lacks = container.lacking() if by_privilege else []
    remedy = container.options(lacks) if lacks else remedy
    try:
        return _check(name, True, ask(), remedy, required)
    except BpfError as error:
        plain = lacks or error.cause in (Cause.NO_TRACEPOINT, Cause.OTHER)
        return Check(name, False, required, error.reason, remedy if plain else error.cause.value, error.log)
    except _NotAllowed as error:
        return _check(name, False, str(error), remedy if lacks else Cause.PRIVILEGE.value, required)
    except (_No, BuildError, OSError) as error:
        return _check(name, False, str(error).splitlines()[0], remedy, required)


def _try_network() -> str:
    script = (
        "mount --make-rprivate / && mount -t sysfs sysfs /sys && "
        "ip link add probe0 numrxqueues 2 numtxqueues 2 type veth peer name probe1 && "
        "echo 1 > /sys/class/net/probe0/queues/rx-1/rps_cpus"
    )
    done = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", script], capture_output=True, text=True)
    if "not permitted" in done.stderr or "denied" in done.stderr:
        raise _NotAllowed(done.stderr.splitlines()[0])
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
    """Try whether the kernel honours SO_INCOMING_CPU among SO_REUSEPORT listeners.

    Over loopback the sender's CPU handles the SYN. Of two listeners, the one for our CPU must get every connection.
    """
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


def _try_port_range() -> str:
    """Try IP_LOCAL_PORT_RANGE by its effect: the kernel must choose the only port in the range."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(PORT_TRIES):
            if _port_from_range(listener, wanted := _ephemeral_port()) == wanted:
                return "a connection gets the port that it is left"
    raise _No("the kernel does not keep to it")


def _ephemeral_port() -> int:
    """A port that the kernel chose and that is free again."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def _port_from_range(listener: socket.socket, port: int) -> int:
    """The source port of a connection that may use only this port; 0 if the port is taken."""
    with socket.socket() as connection:
        try:
            connection.setsockopt(socket.IPPROTO_IP, PORT_RANGE, struct.pack("=I", port | port << 16))
        except OSError:
            raise _No("the kernel does not know it") from None
        if connection.connect_ex(listener.getsockname()):
            return 0
        listener.accept()[0].close()
        return int(connection.getsockname()[1])


def _try_nic() -> str:
    build()
    with SteeringProgram("emulated"):
        return "the steering program loads"


def _try_threads() -> str:
    """Try whether receive queues can have threads. Only the lab's own Python has the library to ask the kernel."""
    if not has_environment():
        raise _No("not known before set-up")
    question = "from topologies.queue_threads import why_not; print(why_not() or '')"
    said = subprocess.run([VENV_PYTHON, "-c", question], cwd=ROOT, capture_output=True, text=True)
    if reason := said.stdout.strip() or said.stderr.strip()[-200:]:
        raise _No(reason)
    return "the kernel tells which they are"


def _try_backend(backend: Backend) -> str:
    build()
    reason = backend.why_not(mode=backend.modes[-1])
    if reason:
        raise _No(reason)
    return f"can do {', '.join(backend.modes)}"


def _try_locality() -> str:
    build()
    with ExitStack() as stack:
        probe = LocalityProbe(stack)
    if probe.seen_by != reads.TRACEPOINTS[0]:
        return f"loads and attaches, to {probe.seen_by}, which tells less: {reads.OF_LINUX_6_3}"
    return f"loads and attaches, to {probe.seen_by}"


def _try_contention() -> str:
    build()
    with ExitStack() as stack:
        ContentionProbe(stack)
    return "loads and attaches"


def main(arguments: list[str]) -> int:
    """Print all checks. Returns 1 when a required check fails, 2 for an unknown argument."""
    if unknown := [argument for argument in arguments if argument not in ("--json", "--yes")]:
        print(f"lab.py doctor: there is no {unknown[0]}; there are --json and --yes", file=sys.stderr)
        return 2
    found = list(checks())
    if "--json" in arguments:
        print(json.dumps([asdict(check) for check in found], indent=2))
    else:
        print("\n".join(map(_line, found)))
    return int(any(check.required and not check.ok for check in found))


def _line(check: Check) -> str:
    verdict = "ok     " if check.ok else "MISSING" if check.required else "without"
    more = "; doctor --json has the whole log" if check.log else ""
    return f"{verdict}  {check.name}: {check.detail}" + (f"\n         -> {check.remedy}{more}" if check.remedy else "")
