"""wrk: the load generator for HTTP, a connection per request, as many as the server will take."""

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from topologies.testbed import Testbed
from workloads.process import WorkloadError, running

SCRIPT = Path(__file__).with_name("wrk.lua")
CONNECTIONS_PER_CORE = 100
GRACE_SECONDS = 20


@dataclass(frozen=True)
class Load:
    """What the generator saw: requests done, for how long, latency percentiles, errors by kind, its own CPU time.

    A latency runs from sending a request to having its answer; the handshake before it is not in it.
    """

    requests: int
    seconds: float
    latency_ms: dict[str, float]
    errors: dict[str, int]
    cpu_seconds: float


def wrk(testbed: Testbed, port: int, cores: int, cpus: list[int], seconds: int) -> Load:
    """Load the testbed's server for whole seconds from the client host, a thread per CPU given.

    Raises WorkloadError when wrk is missing or fails.
    """
    threads = len(cpus)
    connections = max(CONNECTIONS_PER_CORE * cores, threads)
    command = testbed.command(testbed.client, cpus, [
        "wrk", "--threads", str(threads), "--connections", str(connections), "--duration", f"{seconds}s",
        "--script", str(SCRIPT), f"http://{testbed.server.IP()}:{port}/"])
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err, usage = _finish(process, seconds + GRACE_SECONDS)
    if process.returncode:
        raise WorkloadError(f"wrk failed: {(err or out).strip()}")
    result = json.loads(out.splitlines()[-1])
    return Load(cpu_seconds=usage.ru_utime + usage.ru_stime, **result)


def _finish(process: subprocess.Popen, timeout: float) -> tuple[str, str, resource.struct_rusage]:
    """Its output and its resource use: of the children reaped meanwhile it is the only one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise WorkloadError(f"wrk did not end within {timeout} s") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, err, resource.struct_rusage(now - was for now, was in zip(after, before))


def version() -> str:
    """Raises WorkloadError when wrk is not installed."""
    path = shutil.which("wrk")
    if not path:
        raise WorkloadError("wrk is not installed: apt-get install wrk")
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    return said.split()[1]
