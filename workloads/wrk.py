"""wrk: the load generator for HTTP at full speed, a connection per request."""

import json
import subprocess
from pathlib import Path

from topologies.testbed import Testbed
from workloads import limits
from workloads.http import PORT
from workloads.load import Load
from workloads.process import finish, reaped_cpu_seconds, running
from workloads.workload import Cpus

SCRIPT = Path(__file__).with_name("wrk.lua")


def wrk(testbed: Testbed, cpus: Cpus, seconds: int) -> Load:
    """Load the testbed's server from the client host, a thread per CPU of the load.

    Raises WorkloadError when wrk is missing or fails.
    """
    limit, threads = limits.read(), len(cpus.load)
    connections = max(limit.connections_per_core * len(cpus.server), threads)
    command = testbed.command(
        testbed.client,
        cpus.load,
        [
            "wrk",
            "--threads",
            str(threads),
            "--connections",
            str(connections),
            "--duration",
            f"{seconds}s",
            "--timeout",
            f"{limit.answer_seconds}s",
            "--script",
            str(SCRIPT),
            f"http://{testbed.server.IP()}:{PORT}/",
        ],
    )
    spent_before = reaped_cpu_seconds()
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out = finish(process, "wrk", seconds)
    return Load(cpu_seconds=reaped_cpu_seconds() - spent_before, **json.loads(out.splitlines()[-1]))
