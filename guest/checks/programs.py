"""Does the kernel's verifier accept every BPF program, loaded as the command and the lab load it?

A program is excused where its tracepoint came with a later kernel.
"""

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench.walk import walked
from fastsocket.libbpf import BpfError
from fastsocket.measure.probe import Probe
from fastsocket.steering.cpus import machine_cpus
from fastsocket.steering.program import SteeringProgram
from guest.checks import ROOT, No, answer
from probes.trial import CallsProbe, ContentionProbe, LocalityProbe

RECEIVED = (6, 3), "sock_recv_length came with Linux 6.3 (6e6eda44b939)"
SINCE = {"locality": RECEIVED, "measure": RECEIVED, "walk": RECEIVED}
LOADED: dict[str, Callable[[ExitStack], object]] = {  # how to load each object of fastsocket/bpf; the stack unloads it
    "emulated": lambda stack: stack.enter_context(SteeringProgram("emulated")),
    "cpumap": lambda stack: stack.enter_context(SteeringProgram("cpumap", {"cpus": machine_cpus()})),
    "locality": LocalityProbe,
    "contention": ContentionProbe,
    "calls": CallsProbe,
    "measure": lambda stack: stack.enter_context(Probe({}, [])),
    "walk": lambda stack: stack.enter_context(_walk(Path(stack.enter_context(tempfile.TemporaryDirectory())))),
}


def check() -> str:
    """How many BPF programs load, and which are excused. Raises No where the kernel refuses another one."""
    names = sorted(path.name.removesuffix(".bpf.c") for path in (ROOT / "fastsocket/bpf").glob("*.bpf.c"))
    refused = {name: why for name in names if (why := _why_not(name))}
    excused = [f"{name}: {SINCE[name][1]}" for name in refused if name in SINCE and _kernel() < SINCE[name][0]]
    if len(excused) < len(refused):
        raise No("; ".join(f"{name}: {why}" for name, why in refused.items()))
    return "; ".join([f"{len(names) - len(refused)} of {len(names)}", *excused])


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


def _why_not(name: str) -> str:
    try:
        with ExitStack() as stack:
            LOADED[name](stack)
    except BpfError as error:
        return str(error).splitlines()[0]
    return ""


def _walk(folder: Path) -> AbstractContextManager[None]:
    return walked(folder / "walk.csv", os.getpid(), range(1, 2), folder)


if __name__ == "__main__":
    answer(check)
