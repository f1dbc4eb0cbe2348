"""The BPF programs on the kernel that runs: verifiers differ, and what one takes another one refuses."""

import pytest

from fastsocket.build import HERE, bpf_object
from fastsocket.libbpf import BpfObject
from fastsocket.steering.cpus import machine_cpus

OBJECTS = sorted(source.name.removesuffix(".bpf.c") for source in (HERE / "bpf").glob("*.bpf.c"))


@pytest.mark.privileged
@pytest.mark.parametrize("name", OBJECTS)
def test_the_verifier_takes_every_program(name):
    with BpfObject(bpf_object(name)) as programs:
        if name == "cpumap":
            programs.resize("cpus", machine_cpus())
        programs.load()
