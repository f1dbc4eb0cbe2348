"""Does the kernel's verifier take every BPF program? Those are left out whose tracepoint came with a later kernel."""

import os
import re

from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfError, BpfObject
from fastsocket.steering.cpus import machine_cpus
from guest.checks import ROOT, No, answer

# What the programs attach to that not every kernel has: since when, and by which commit.
RECEIVED = (6, 3), "sock_recv_length came with Linux 6.3 (6e6eda44b939)"
SINCE = {"locality": RECEIVED, "walk": RECEIVED}


def check() -> str:
    """How many load."""
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
        with BpfObject(bpf_object(name)) as program:
            if name == "cpumap":
                program.resize("cpus", machine_cpus())
            program.load()
    except BpfError as error:
        return str(error).splitlines()[0]
    return ""


if __name__ == "__main__":
    answer(check)
