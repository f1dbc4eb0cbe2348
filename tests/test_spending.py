"""Whose CPU time it was, and what else a request took, checked against a server of known cost, in real namespaces."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from bench.meter import Meter
from bench.neighbour import neighbour
from bench.spending import Spending
from fastsocket.measure.machine import between_cpus
from fastsocket.steering import EmulatedNic, Plan
from records.trials import UNTOLD
from tests.harness.cpus import ALL_CPUS, NEEDS_TWO_CPUS
from topologies.queue_threads import threads_of
from workloads import generator
from workloads.generator import Dialogue, open_loop
from workloads.load import Demand
from workloads.workload import Cpus

PORT = 8080
COST = 400e-6  # seconds of CPU time for each request
ANSWER = "served\n"
SERVER = f"""
import resource, socket, sys, time
def switches():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw
listener = socket.create_server(("", {PORT}), backlog=4096)
started, before = time.process_time(), switches()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(64)
    began = time.thread_time()
    while time.thread_time() - began < {COST}:
        pass
    connection.sendall({ANSWER.encode()})
    connection.close()
    open(sys.argv[1], "w").write(f"{{time.process_time() - started}} {{switches() - before}}")
"""

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(60)]


@pytest.fixture
def threads(testbed):
    """The queues' threads at both ends of the link, with packets steered to them."""
    (link,) = testbed.links_to(testbed.server)
    with ExitStack() as stack:
        made = stack.enter_context(threads_of([link]))
        for queues in made.values():
            queues.pin(ALL_CPUS)
        stack.enter_context(stack.enter_context(EmulatedNic([link], made)).steer(Plan("rss", ALL_CPUS)))
        yield made


@pytest.fixture
def told(testbed, tmp_path):
    """A server that spends COST on each request, and the file in which it says how long and how often it has run."""
    command = testbed.command(testbed.server, ALL_CPUS, [sys.executable, "-c", SERVER, str(tmp_path / "told")])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield tmp_path / "told"
        finally:
            process.kill()


def test_each_owner_has_its_own_time(testbed, threads, told):
    generator.build()
    cpus, dialogue = Cpus(ALL_CPUS, ALL_CPUS), Dialogue("ask\n", ANSWER, ANSWER)
    with Meter(Spending(testbed.hosts, threads), testbed.server.pid) as meter:
        load = open_loop(testbed, cpus, Demand(seconds=2, rate=300), range(PORT, PORT + 1), dialogue)
    spent = meter.spent(ended={"client": load.cpu_seconds})
    assert load.requests > 400
    for packets in meter.packets:  # SYN, ACK, request, ACK of the answer, FIN; and as many the other way
        assert 4 <= packets / load.served < 6
    seconds, switches = map(float, told.read_text().split())
    assert meter.switches("server") == pytest.approx(switches, rel=0.02, abs=5)
    assert spent["server"] == pytest.approx(seconds, rel=0.02, abs=0.02)
    assert COST <= spent["server"] / load.served <= 2 * COST
    assert 0 < spent["server NIC"] < spent["server"]
    assert 0 < spent["client NIC"] < spent["server"]
    assert load.cpu_seconds <= spent["client"] < 1.5 * load.cpu_seconds
    # What ends meanwhile elsewhere on the machine is untold, so only its lower limit is sure.
    assert spent[UNTOLD] > -0.02 * sum(spent.values()) - 0.02


@NEEDS_TWO_CPUS
def test_interrupts_between_cpus_are_counted():
    """A process that runs is moved by the kernel's thread on its CPU, which we have to interrupt that CPU for."""
    moves, before = 500, os.sched_getaffinity(0)
    with neighbour(ALL_CPUS[1], nice=0) as pid:
        os.sched_setaffinity(0, {ALL_CPUS[0]})
        try:
            counted = between_cpus()
            for move in range(moves):
                os.sched_setaffinity(pid, {ALL_CPUS[1 - move % 2]})
            assert between_cpus() - counted >= moves / 20  # on a busy machine the process waits most of the time
        finally:
            os.sched_setaffinity(0, before)
