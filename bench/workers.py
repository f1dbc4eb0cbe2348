"""Starts the workers of a cluster: on this machine, or on other machines over SSH."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.alone import SCOPE
from bench.engine import LocalCluster
from bench.experiment import UsageError, usable_cpus
from bench.threads import by_core
from bench.worker import READY, ROOT, ClusterError
from topologies.ssh import SshHost
from topologies.tag import RunTag
from topologies.two_hosts import here

LAB = ROOT / "lab.py"
# A command that, run over SSH, prints the address by which the other machine sees this one: ssh(1).
OUR_ADDRESS = ["sh", "-c", 'echo "${SSH_CONNECTION%% *}"']


@contextmanager
def workers_here(count: int, cores: int) -> Iterator[str]:
    """Start a scheduler and so many workers on this machine, each worker on CPUs of its own. Yields the scheduler's
    address.

    cores: how many CPUs the sweep needs. Raises UsageError if a worker would get fewer, and ClusterError if the
    scheduler or a worker does not start.
    """
    cpus = [cpu for core in by_core(usable_cpus()) for cpu in core]
    share = len(cpus) // max(count, 1)
    if not count or share < cores:
        raise UsageError(
            f"--cluster {count}: on {len(cpus)} CPUs each worker gets {share if count else 'none'}, and the sweep asks "
            f"for {cores}: choose other --cores or fewer workers"
        )
    with ExitStack() as stack:
        address = stack.enter_context(_scheduler("127.0.0.1"))
        started = [
            stack.enter_context(_worker_here(address, number, cpus[number * share :][:share]))
            for number in range(count)
        ]
        for process in started:
            _wait_for(process, "here")
        yield address


@contextmanager
def workers_there(hosts: list[str]) -> Iterator[str]:
    """Start a scheduler on this machine and a worker on each of these hosts. Yields the scheduler's address.

    hosts: names that ssh understands. Each host has the checkout under the same path as this machine. Raises
    ClusterError, HostError and TestbedError.
    """
    with ExitStack() as stack:
        machines = [stack.enter_context(_reached(host)) for host in hosts]
        address = stack.enter_context(_scheduler(machines[0].first_line(OUR_ADDRESS)))
        started = {machine.name: stack.enter_context(_worker_there(address, machine)) for machine in machines}
        for name, process in started.items():
            _wait_for(process, f"on {name}")
        yield address


@contextmanager
def _reached(host: str) -> Iterator[SshHost]:
    with RunTag() as tag, here(tag) as near, SshHost(host, near, tag.directory, {"python3": "python3"}) as machine:
        yield machine


@contextmanager
def _scheduler(host: str) -> Iterator[str]:
    """Start a scheduler at this address of our machine. Yields the scheduler's address. Raises ClusterError."""
    try:
        scheduler = LocalCluster(
            n_workers=0, processes=True, host=host, dashboard_address=None, silence_logs=logging.CRITICAL
        )
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"no scheduler starts at {host}, as the workers see this machine: {error}") from error
    with scheduler:
        yield scheduler.scheduler_address


@contextmanager
def _worker_there(address: str, machine: SshHost) -> Iterator["subprocess.Popen[str]"]:
    command = machine.command(machine.cpus, ["python3", f"{LAB}", "--yes", "worker", address])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def _worker_here(address: str, number: int, cpus: list[int]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        ["taskset", "--cpu-list", ",".join(map(str, cpus)), sys.executable, LAB, "worker", address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, SCOPE: f"{os.environ.get(SCOPE, '')} worker {number}"},
        start_new_session=True,  # a Ctrl-C reaches our process alone, which then ends the worker
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait_for(process: "subprocess.Popen[str]", where: str) -> None:
    """Wait until the worker says that it takes blocks. Raises ClusterError with its last line if it ends instead."""
    said = ""
    for said in process.stdout or []:
        if said.startswith(READY):
            return
    raise ClusterError(f"a worker did not start {where}: {said.strip() or 'it said nothing'}")
