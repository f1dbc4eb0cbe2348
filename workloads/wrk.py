"""wrk: the load generator for HTTP, a connection per request, as many as the server will take."""

import json
import subprocess
from pathlib import Path

from topologies.testbed import Testbed
from workloads.http import PORT
from workloads.load import Load
from workloads.process import finish, reaped_cpu_seconds, running
from workloads.workload import Cpus

SCRIPT = Path(__file__).with_name("wrk.lua")
CONNECTIONS_PER_CORE = 100
GRACE_SECONDS = 20


def wrk(testbed: Testbed, cpus: Cpus, seconds: int) -> Load:
    """Load the testbed's server for whole seconds from the client host, a thread per CPU of the load.

    Raises WorkloadError when wrk is missing or fails.
    """
    threads = len(cpus.load)
    connections = max(CONNECTIONS_PER_CORE * len(cpus.server), threads)
    command = testbed.command(testbed.client, cpus.load, [
        "wrk", "--threads", str(threads), "--connections", str(connections), "--duration", f"{seconds}s",
        "--script", str(SCRIPT), f"http://{testbed.server.IP()}:{PORT}/"])
    spent_before = reaped_cpu_seconds()
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out = finish(process, "wrk", seconds + GRACE_SECONDS)
    return Load(cpu_seconds=reaped_cpu_seconds() - spent_before, **json.loads(out.splitlines()[-1]))
