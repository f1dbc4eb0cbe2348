"""The BPF programs on the kernel that runs, and what is said where it refuses them."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastsocket.build import HERE, bpf_object
from fastsocket.libbpf import BpfError, BpfObject, has_tracepoint
from fastsocket.refusal import Cause, cause_of, telling_line
from fastsocket.steering.cpus import machine_cpus
from tests.harness.commands import WITHOUT_BPF
from tests.harness.needs import need

ROOT = HERE.parent
OBJECTS = sorted(source.name.removesuffix(".bpf.c") for source in (HERE / "bpf").glob("*.bpf.c"))
# Python that loads an object, and says why it could not.
LOADS = """
import sys
from fastsocket.libbpf import BpfError, BpfObject
from fastsocket.build import bpf_object
with BpfObject(bpf_object(sys.argv[1])) as programs:
    try:
        programs.load()
    except BpfError as error:
        print(error.cause.name, error.reason)
"""


@pytest.mark.privileged
@pytest.mark.parametrize("name", OBJECTS)
def test_the_verifier_takes_every_program(name):
    """Verifiers differ, and what one takes another one refuses: run on each kernel that is promised."""
    with BpfObject(bpf_object(name)) as programs:
        if name == "cpumap":
            programs.resize("cpus", machine_cpus())
        for tracepoint in ("sock_recv_length", "tcp_rcv_space_adjust"):
            if name in ("locality", "measure", "walk") and not has_tracepoint(tracepoint):
                programs.leave_out(tracepoint)
        programs.load()


def loads(name: str, *launcher: str) -> str:
    """What loading an object says under a launcher."""
    done = subprocess.run([*launcher, sys.executable, "-c", LOADS, name], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.privileged
@pytest.mark.parametrize(
    "launcher, cause, words",
    [
        (["setpriv", "--bounding-set", "-sys_admin,-bpf"], "PRIVILEGE", "Operation not permitted"),
        (WITHOUT_BPF, "NO_BPF", "Function not implemented"),
        (["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf; exec "$@"', "sh"], "NO_BTF", "BTF"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_refusal_is_told_by_its_cause(launcher, cause, words):
    said = loads("contention", *launcher)
    assert said.startswith(f"{cause} cannot load the BPF programs: ")
    assert words in said


UNBOUNDED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int unbounded(struct __sk_buff *skb)
{
	char *data = (char *)(long)skb->data;

	return data[skb->mark];
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def unbounded_object(tmp_path):
    need("clang")
    source, compiled = tmp_path / "unbounded.bpf.c", tmp_path / "unbounded.bpf.o"
    source.write_text(UNBOUNDED)
    triplet = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(
        ["clang", "-target", "bpf", "-O2", "-g", f"-I/usr/include/{triplet}", "-c", source, "-o", compiled], check=True
    )
    return compiled


@pytest.mark.privileged
def test_refused_program_comes_with_the_verifiers_log(unbounded_object):
    wanted = r"(?s)cannot load.*BEGIN PROG LOAD LOG.*data\[skb->mark\]"
    with BpfObject(unbounded_object) as refused, pytest.raises(BpfError, match=wanted):
        refused.load()


@pytest.mark.privileged
def test_a_verifiers_refusal_is_its_last_telling_line(unbounded_object):
    with BpfObject(unbounded_object) as refused, pytest.raises(BpfError) as raised:
        refused.load()
    error = raised.value
    assert error.cause is Cause.VERIFIER
    assert str(error) == error.reason
    assert error.reason.startswith("cannot load the BPF programs: the verifier refuses ")
    assert error.reason.endswith(" is outside of the packet")
    assert len(error.reason.splitlines()) == 1 < len(error.log)


@pytest.mark.parametrize(
    "log, cause, line",
    [
        (
            "verifier-6.1",
            Cause.VERIFIER,
            (
                "the verifier refuses steer: math between map_value pointer and register with "
                "unbounded min value is not allowed"
            ),
        ),
        ("tracepoint-6.1", Cause.NO_TRACEPOINT, "this kernel has no tracepoint sock_recv_length"),
    ],
)
def test_what_linux_6_1_said(log, cause, line):
    said = (Path(__file__).parent / "refusals" / f"{log}.log").read_text().splitlines()
    assert (cause_of(22, said), telling_line(22, said)) == (cause, line)


def test_a_tracepoint_is_there_or_not():
    assert has_tracepoint("tcp_rcv_space_adjust")
    assert not has_tracepoint("no_such_tracepoint")
