"""A testbed of a cluster: a worker of Dask, which measures one block at a time in a process of its own."""

import asyncio
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.engine import Worker
from bench.experiment import usable_cpus
from fastsocket.build import build
from setup.fingerprint import code
from workloads import generator
from workloads.process import WorkloadError

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 5  # to reach a scheduler in
READY = "takes blocks from"
_blocks: list[subprocess.Popen[str]] = []  # that are being measured: one at most


class ClusterError(Exception):
    """The cluster cannot measure; the message says why, and how to mend it."""

    exit_status = 3


def measure(task: str) -> str:
    """Called by a scheduler: a bench.block.Block for a Task, both as JSON. Raises WorkloadError."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.block"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is the worker's
    ) as block:
        _blocks.append(block)
        try:
            said, complaint = block.communicate(task)
        finally:
            _blocks.remove(block)
    if block.returncode:
        raise WorkloadError(([*complaint.strip().splitlines()] or ["interrupted"])[-1])
    return said


def end() -> None:
    """Called by a scheduler, too: what is being measured here ends, with its testbed."""
    for block in [*_blocks]:
        block.terminate()
        block.wait()


def serve(scheduler: str) -> None:
    """Measure what this scheduler asks for, until the scheduler ends, or until Ctrl-C. Raises ClusterError."""
    build()
    generator.build()
    try:
        asyncio.run(_serve(scheduler))
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(unreachable(scheduler)) from error


def unreachable(scheduler: str) -> str:
    """Of a wrong address."""
    return f"no scheduler answers at {scheduler}: start one there by .venv/bin/dask scheduler"


async def _serve(scheduler: str) -> None:
    told = {"host": platform.node(), "cpus": len(usable_cpus()), "code": code()}
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    with TemporaryDirectory() as scratch:
        async with Worker(
            scheduler,
            nthreads=1,
            name=f"{told['host']}-{os.getpid()}",
            memory_limit=None,
            local_directory=scratch,
            death_timeout=SECONDS,
            startup_information={"testbed": lambda worker: told},
        ) as worker:
            print(READY, scheduler, flush=True)
            waits = [asyncio.create_task(waited) for waited in (interrupted.wait(), worker.finished())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            end()
