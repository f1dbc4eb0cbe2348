"""wrk: the load generator for HTTP, a connection per request, as many as the server will take or at a rate."""

import json
import os
import subprocess
from pathlib import Path

from topologies.testbed import Testbed
from workloads import limits
from workloads.http import PORT
from workloads.load import Demand, Load
from workloads.process import finish, reaped_cpu_seconds, running
from workloads.workload import Cpus

SCRIPT = Path(__file__).with_name("wrk.lua")


def wrk(testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
    """Load the testbed's server from the client host, a thread per CPU of the load.

    A rate comes out lower by the time that answers take: each connection waits a random time, on average as long as
    the rate allows, between being made and its request.

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
            f"{demand.seconds}s",
            "--timeout",
            f"{limit.answer_seconds}s",
            "--script",
            str(SCRIPT),
            f"http://{testbed.server.IP()}:{PORT}/",
        ],
    )
    spent_before = reaped_cpu_seconds()
    environment = os.environ | ({"WRK_DELAY_MS": str(1000 * connections / demand.rate)} if demand.rate else {})
    with running(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out = finish(process, "wrk", demand.seconds)
    return Load(cpu_seconds=reaped_cpu_seconds() - spent_before, **json.loads(out.splitlines()[-1]))
