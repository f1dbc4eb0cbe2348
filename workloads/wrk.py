"""wrk: the load generator for HTTP at full speed, a connection per request."""

import json
import subprocess
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http, limits
from workloads.http import PORT
from workloads.load import Load
from workloads.process import WorkloadError, finish, reaped_cpu_seconds, running
from workloads.workload import Cpus

SIZE_TOLERATED = 0.05
SCRIPT = Path(__file__).with_name("wrk.lua")


def wrk(testbed: Testbed, cpus: Cpus, seconds: int) -> Load:
    """Load the testbed's server from the client host, with a thread on each CPU of the load.

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
            testbed.client.deploy(SCRIPT),
            f"http://{testbed.server.IP()}:{PORT}/",
        ],
    )
    answer_bytes, spent_before = len(http.answer(testbed.client, testbed.server.IP())), reaped_cpu_seconds()
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out = finish(process, "wrk", seconds)
    cpu_seconds, said = reaped_cpu_seconds() - spent_before, json.loads(out.splitlines()[-1])
    _require_size(said.pop("answers"), said.pop("bytes"), answer_bytes, said["errors"])
    return Load(cpu_seconds=cpu_seconds, **said)


def _require_size(answers: int, received: int, answer_bytes: int, errors: dict[str, int]) -> None:
    """Raises WorkloadError where the answers' mean size is not that of the server's answer before the load.

    A small difference is tolerated, because the last answers of a load are cut short. Where some answers have an error
    status, sizes are not checked.
    """
    if answers and not errors["status"] and abs(received / answers / answer_bytes - 1) > SIZE_TOLERATED:
        raise WorkloadError(f"answers had {received / answers:.0f} bytes instead of {answer_bytes}")
