"""The real nginx with the library alone, and nothing of the lab around it."""

import os
import signal
import socket
import urllib.request
from collections import Counter
from contextlib import closing

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from fastsocket.processes import children
from tests.harness.patience import patient
from tests.libfsocket_apps.loopback import on_cpus
from workloads.process import running, until

CPUS = sorted(os.sched_getaffinity(0))

STANDALONE = """\
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "worker $pid\\n"; }} }}
}}
"""


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=patient(5)) as answer:
        return answer.read().decode()


def answers(port):
    try:
        return fetch(port).startswith("worker")
    except OSError:
        return False


@pytest.fixture
def standalone(tmp_path):
    """nginx on loopback under the preload, with nothing of the lab around it, an unpinned worker for each CPU."""
    port, configuration = free_port(), tmp_path / "nginx.conf"
    configuration.write_text(STANDALONE.format(directory=tmp_path, port=port, workers=len(CPUS)))
    command = [
        "nginx",
        "-p",
        str(tmp_path),
        "-c",
        str(configuration),
        "-e",
        str(tmp_path / "error.log"),
        "-g",
        "daemon off;",
    ]
    with running(command, env={**os.environ, "LD_PRELOAD": str(LIBRARY)}) as process:
        ready = until(lambda: adopted(process.pid) == len(CPUS) and answers(port), process, patient(10))
        assert ready, (tmp_path / "error.log").read_text()
        yield process, port


def adopted(pid):
    try:
        return sum(cpu.adopted for cpu in shared_memory.counters(pid))
    except shared_memory.NotPreloaded:
        return 0


def fetch_from(cpu, port):
    """A page fetched from a CPU: over loopback, that CPU handles the SYN."""
    with on_cpus({cpu}):
        return fetch(port)


def test_the_preload_works_without_the_lab(standalone):
    process, port = standalone
    before = shared_memory.counters(process.pid)
    workers = {cpu: {fetch_from(cpu, port) for _ in range(5)} for cpu in CPUS}
    assert all(len(seen) == 1 for seen in workers.values()), "each CPU's connections have one worker"
    assert len(set.union(*workers.values())) == len(CPUS), "and each worker has its own CPU"
    after = shared_memory.counters(process.pid)
    assert [after[cpu].accepted_local - before[cpu].accepted_local for cpu in CPUS] == [5] * len(CPUS)


def test_unpinned_workers_are_pinned_to_a_cpu_each(standalone):
    process, _ = standalone
    affinities = Counter(frozenset(os.sched_getaffinity(worker)) for worker in children(process.pid))
    assert affinities == Counter({frozenset({cpu}): 1 for cpu in CPUS})


def test_a_reload_loses_no_connection(standalone):
    """SIGHUP: new workers adopt while the old ones still serve, so that every connection is answered."""
    process, port = standalone
    old = set(children(process.pid))
    process.send_signal(signal.SIGHUP)
    fetched = 0
    while old & set(children(process.pid)) or len(children(process.pid)) < len(CPUS):
        assert fetch(port).startswith("worker")
        fetched += 1
    assert fetched > 0
    assert all(fetch_from(cpu, port).startswith("worker") for cpu in CPUS)


def test_a_killed_worker_is_replaced_on_its_cpu(standalone):
    process, port = standalone
    victim = children(process.pid)[0]
    (cpu,) = os.sched_getaffinity(victim)
    os.kill(victim, signal.SIGKILL)
    assert until(
        lambda: victim not in children(process.pid) and adopted(process.pid) == len(CPUS) + 1, process, patient(10)
    )
    assert fetch_from(cpu, port).startswith("worker")
