"""fastsocket measure: its numbers are those of the lab's probes, its advice fits the server, and nothing stays."""

import ctypes
import json
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.schedule import Slot
from bench.sweep import bench
from fastsocket import reads
from fastsocket.measure.measured import Connections, Measured
from fastsocket.measure.measuring import measure
from fastsocket.measure.probe import Probe, total
from fastsocket.measure.rules import advice
from fastsocket.measure.target import Target, find
from fastsocket.processes import family, stat_fields
from fastsocket.servers import OutOfReach
from records.run import Placement
from tests.harness import servers
from tests.harness.apps import LOOPBACK
from tests.harness.commands import FASTSOCKET, NOBODY, ROOT, WITHOUT_BPF, as_nobody, assert_one_line, fastsocket
from tests.harness.cpus import ALL_CPUS, CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import ALL, BY_CHANCE, KEPT_BY_CHANCE
from tests.harness.patience import patient
from tests.harness.servers import Served, free_port, served
from tests.harness.waiting import wait_until
from workloads.process import running
from workloads.readiness import watchers

SECONDS = 2
UNDER_WAY = 100  # connections each second: as many may be open, and not read yet, when the counting ends
PLACEMENT = Placement(cores=len(ALL_CPUS), server_cpus=ALL_CPUS, load_cpus=ALL_CPUS)

pytestmark = pytest.mark.timeout(60)


def verdicts(measured: Measured) -> dict[str, str]:
    return {one.switch: one.verdict for one in advice(measured)}


# ---- beside the lab's own probes and counters


@pytest.fixture(scope="module")
def trials():
    with bench(["nginx", "haproxy", "redis"], len(ALL_CPUS), "threads") as (made, _):
        yield made


def instances(pid: int) -> set[Target]:
    """A trial's server, and the others of its program that these tests have started: Redis has one for each CPU."""
    program = os.readlink(f"/proc/{pid}/exe")
    return {find(str(one)) for one in family(os.getpid()) if os.readlink(f"/proc/{one}/exe") == program}


def watched(trials, workload: str, variant: str) -> tuple[list[Measured], dict[str, float]]:
    """What is measured of each instance while a trial's load runs, and what the lab says of the trial."""
    with ThreadPoolExecutor(len(ALL_CPUS)) as beside:

        @contextmanager
        def meanwhile(server_pid, ports, scratch):
            watching = [beside.submit(measure, instance, SECONDS) for instance in instances(server_pid)]
            yield
            found.extend(one.result() for one in watching)

        found: list[Measured] = []
        slot = Slot(0, 0, workload, variant, False, len(ALL_CPUS))
        trial = trials.run(slot, PLACEMENT, seconds=SECONDS, observe=meanwhile)
    return found, trial.metrics


def local_percent(directions: list[Connections]) -> float:
    """Of the reads of all instances."""
    return sum(of.local_percent * of.reads for of in directions) / sum(of.reads for of in directions)


@pytest.mark.slow
@pytest.mark.privileged
@NEEDS_TWO_CPUS
@pytest.mark.parametrize(
    "workload, variant, passive, active",
    [
        ("nginx", "base", BY_CHANCE, None),
        ("nginx", "fastsocket", ALL, None),
        ("haproxy", "base", BY_CHANCE, BY_CHANCE),
        ("redis", "base", KEPT_BY_CHANCE, None),
    ],
)
def test_numbers_are_those_of_the_lab(trials, workload, variant, passive, active):
    found, metrics = watched(trials, workload, variant)
    for expected, name in ((passive, "passive"), (active, "active")):
        directions = [getattr(measured, name) for measured in found]
        if expected is None:
            assert all(of.reads == 0 for of in directions)
        else:
            lab = metrics[f"{name}_local_percent"]
            assert local_percent(directions) == pytest.approx(lab, abs=2)
            assert lab >= expected if expected is ALL else lab == expected
    measured = found[0]
    said = verdicts(measured)
    if workload == "redis":
        assert measured.costs.unit == "read" and measured.passive.reads_each is None
        assert (said["the library"], said["nic"], said["answer with FIN"]) == ("no", "try", "no")
        return
    counted = measured.namespace  # the lab's has no other server
    assert measured.passive.per_second == pytest.approx(counted.accepted_per_second, rel=0.02, abs=UNDER_WAY)
    assert measured.active.per_second == pytest.approx(counted.opened_per_second, rel=0.02, abs=UNDER_WAY)
    assert 0.5 < measured.passive.per_second / metrics["cps"] < 1.2  # a load begins and ends with a pause
    assert measured.passive.reads_each == pytest.approx(1, abs=0.01)
    assert measured.costs.interrupts == pytest.approx(metrics["interrupts_per_request"], rel=0.5, abs=0.5)
    own = measured.costs.user_us + measured.costs.system_us
    assert own < metrics["cpu_us_per_request"]
    assert sum(cpu.packets_percent for cpu in measured.cpus) == pytest.approx(100)
    assert sum(worker.connections_percent or 0 for worker in measured.workers) == pytest.approx(100)
    assert said["the library"] == ("on" if variant == "fastsocket" else "try")
    assert said["Flow Deliver"] == said["nic"] == ("no" if active is None else "try")
    assert measured.missing == []


# ---- the command


@contextmanager
def loaded(server, directory: Path, preload: bool = False):
    """A server on loopback, asked all the time."""
    with served(server, directory, preload) as one, one.load(CPUS):
        yield one


def answer_of(one: Served, *launcher: str, **options) -> dict:
    command = [*launcher, *FASTSOCKET, "measure", str(one.pid), "--seconds", "0.5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_one_worker_has_nothing_to_gain_from_the_library_and_is_told_so_also_without_bpf(tmp_path):
    with loaded(servers.NGINX_ONE_WORKER, tmp_path) as one:
        seeing, blind = answer_of(one), answer_of(one, *WITHOUT_BPF)
        (worker,) = one.workers()
    assert seeing["missing"] == [] and seeing["costs"]["calls"] > 4
    assert [of["thread"] for of in seeing["workers"]] == [worker]
    (missing,) = blind["missing"]
    assert "Function not implemented" in missing["why"] and "CONFIG_BPF_SYSCALL" in missing["remedy"]
    assert blind["passive"] is None and blind["namespace"]["accepted_per_second"] > 0
    for answer in (seeing, blind):
        (queue,) = answer["queues"]
        assert queue["address"] == f"{LOOPBACK}:{one.port}" and queue["limit"] == 511
        said = {of["switch"]: of for of in answer["advice"]}
        assert said["the library"]["verdict"] == "no" and "One thread accepts" in said["the library"]["says"]


@pytest.mark.privileged
def test_what_it_takes_is_said(tmp_path):
    """Its own CPU time is what the kernel says of its process, and BPF's is not left out."""
    with loaded(servers.NGINX_WORKERS, tmp_path) as one:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = answer_of(one)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took, whole = said["watching"], said["seconds"] * len(said["usable_cpus"])
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0.5 < (took["start_seconds"] + took["command_percent"] / 100 * whole) / own <= 1
    assert 0 < took["command_percent"] < 50 and 0 < took["bpf_percent"] < 10


OWN_SERVER = """
import select, socket
listener, waiting = socket.create_server(("127.0.0.1", 0)), select.epoll()
waiting.register(listener)
print(listener.getsockname()[1], flush=True)
while waiting.poll():
    listener.accept()[0].close()
"""


def seen_by_nobody(pid: int) -> dict:
    """What is measured, or what is said."""

    def look() -> dict:
        try:
            return asdict(measure(find(str(pid)), 0.2))
        except OutOfReach as refusal:
            return {"refusal": str(refusal)}

    return as_nobody(look)


@pytest.mark.privileged
def test_who_is_not_root_measures_own_servers_and_learns_what_is_missing():
    """And is refused another user's."""
    port = free_port()
    command = ["redis-server", "--bind", LOOPBACK, "--port", str(port), "--save", "", "--dir", "/tmp"]
    with running(command, user=NOBODY, stdout=subprocess.DEVNULL) as server:
        wait_until(lambda: watchers(server.pid, port) == 1, "Redis waits for connections")
        measured = seen_by_nobody(server.pid)
    assert [queue["address"] for queue in measured["queues"]] == [f"{LOOPBACK}:{port}"]
    assert measured["watchers"] == 1 and measured["passive"] is None
    missing = measured["missing"][0]
    assert "not permitted" in missing["why"] and "CAP_BPF and CAP_PERFMON" in missing["remedy"]
    refusal = seen_by_nobody(os.getpid())["refusal"]
    assert "belongs to root" in refusal and "sudo" in refusal


def test_what_is_no_server_is_refused():
    with running(["sleep", "60"]) as first, running(["sleep", "60"]):
        assert_one_line(fastsocket("measure", first.pid), 2, f"sleep, process {first.pid}", "listens on no TCP port")
        assert_one_line(fastsocket("measure", "sleep"), 2, "servers are called sleep", "name one")


@pytest.mark.parametrize("pid", ["master", "worker"])
def test_a_server_is_known_by_any_of_its_processes(tmp_path, pid):
    with served(servers.NGINX_WORKERS, tmp_path, preload=False) as one:
        assert find(str(one.pid if pid == "master" else one.workers()[0])).pid == one.pid


# ---- the probe

READS_PIECES = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    while connection.recv(1):
        pass
    connection.close()
"""


@pytest.mark.privileged
def test_a_request_that_is_read_in_pieces_has_one_first_read():
    """And its end may come with it."""
    if reads.tracepoint() != reads.TRACEPOINTS[0]:
        pytest.skip("this kernel does not tell the length of a read")
    with running([sys.executable, "-c", READS_PIECES], stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline())
        with Probe({server.pid: [server.pid]}, {port}) as probe:
            for _ in range(10):
                with socket.create_connection((LOOPBACK, port)) as client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                    client.sendall(b"abc")
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(1) == b""
            row = total(probe.read().values())
    assert (row.passive_firsts, row.passive_reads, row.active_reads) == (10, 30, 0)


@pytest.mark.privileged
def test_there_is_room_for_any_number_of_threads():
    with Probe({1: range(1, 20_000)}, []) as probe:
        assert probe.read().keys() == {*range(1, 20_000)}


# ---- a server that another user controls

# As many generations as would be too deep for a function that calls itself.
GENERATIONS = """
import os, signal, sys
from fastsocket.processes import family, stat_fields
first = os.getpid()
sys.setrecursionlimit(100)
for _ in range(150):
    if os.fork():
        signal.pause()
print(len(family(first)))
os.killpg(first, signal.SIGKILL)
"""


def test_a_family_may_be_of_any_depth():
    done = subprocess.run([sys.executable, "-c", GENERATIONS], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    assert int(done.stdout) == 151


ENDED_BUT_FOR_A_THREAD = """
import ctypes, signal, socket, threading
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=signal.pause).start()
print(flush=True)
ctypes.CDLL(None).syscall(60, 0)
"""


@pytest.mark.privileged
@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")
def test_a_process_whose_first_thread_has_ended():
    with running([sys.executable, "-c", ENDED_BUT_FOR_A_THREAD], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline()
        wait_until(lambda: stat_fields(f"/proc/{server.pid}")[0] == "Z", "its first thread has ended")
        assert_one_line(fastsocket("measure", server.pid, "--seconds", "0.1"), 3, "but for some threads")


# In network and mount namespaces of its own: devices whose names are no text, and a /sys that keeps a reader waiting.
FALSE_SYS = """
set -e
mount -t tmpfs none /sys
mkdir -p /sys/class/net/eth9
mkfifo /sys/class/net/eth9/ifindex
ip link set lo up
ip link add eth9 type veth peer name "$(printf '\\033[2J')"
ip link add "$(printf '\\377')" type veth peer name "\\$(reboot)"
exec "$@"
"""


@pytest.mark.privileged
def test_a_server_has_no_word_in_what_is_read_of_its_namespaces():
    launcher = ["unshare", "--net", "--mount", "sh", "-c", FALSE_SYS, "sh"]
    with running([*launcher, sys.executable, "-c", OWN_SERVER], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline()
        done = fastsocket("measure", server.pid, "--seconds", "0.1", timeout=patient(20))
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("eth9", r"\x1b[2J", r"\udcff", "$(reboot)"))
    assert "\x1b" not in done.stdout and "not measured" not in done.stdout


# ---- nothing stays

IDS = re.compile(r"^(prog|map|link)_id:\s+(\d+)$", re.MULTILINE)
libbpf = ctypes.CDLL("libbpf.so.1")


def bpf_ids(pid: int) -> set[tuple[str, int]]:
    """What a process holds of BPF: programs, maps, links (proc(5), fdinfo)."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found |= {(kind, int(number)) for kind, number in IDS.findall(entry.read_text())}
        except FileNotFoundError:
            continue
    return found


def is_there(kind: str, number: int) -> bool:
    descriptor = getattr(libbpf, f"bpf_{kind}_get_fd_by_id")(number)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def links_of(pid: int) -> int:
    return len([kind for kind, _ in bpf_ids(pid) if kind == "link"])


def watching(pid: int):
    """The command, measuring for longer than any test takes."""
    return running([*FASTSOCKET, "measure", str(pid), "-s", "600"], cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.privileged
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_stays_however_it_ends(number, status):
    with running([sys.executable, "-c", OWN_SERVER]) as server, watching(server.pid) as it:
        wait_until(lambda: links_of(it.pid) == 2, "it counts")
        held = bpf_ids(it.pid)
        assert len(held) > 4 and all(is_there(*one) for one in held)
        it.send_signal(number)
        assert it.wait(patient(10)) == status
        wait_until(lambda: not any(is_there(*one) for one in held), "all of it is gone")


@pytest.mark.privileged
def test_a_server_that_ends_meanwhile_is_said_to():
    with running([sys.executable, "-c", OWN_SERVER]) as server, watching(server.pid) as it:
        wait_until(lambda: links_of(it.pid) == 2, "it counts")
        server.kill()
        server.wait()
        assert it.wait(patient(10)) == 1
        assert "has ended meanwhile" in it.stderr.read()
