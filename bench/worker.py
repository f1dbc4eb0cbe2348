"""A worker of a Dask cluster. It measures one block at a time, each in a process of its own (bench/block.py)."""

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
SECONDS = 5  # in which a scheduler must be reached
READY = "takes blocks from"
_blocks: list[subprocess.Popen[str]] = []  # the blocks that are being measured here: one at most


class ClusterError(Exception):
    """The cluster cannot measure; the message says why, and how to mend it."""

    exit_status = 3


def measure(task: str) -> str:
    """Measure a block; a scheduler calls this. Takes a bench.block.Task and returns a bench.block.Block, both as JSON.

    Raises WorkloadError with the last line of the block's complaint if the block could not be measured.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "bench.block"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C reaches the worker alone, which then ends the block
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
    """End the block that is being measured here, and its testbed. A scheduler calls this, and so does the worker."""
    for block in [*_blocks]:
        block.terminate()
        block.wait()


def serve(scheduler: str) -> None:
    """Measure the blocks that this scheduler sends, until the scheduler ends, or until Ctrl-C. Raises ClusterError."""
    build()
    generator.build()
    try:
        asyncio.run(_serve(scheduler))
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(unreachable(scheduler)) from error


def unreachable(scheduler: str) -> str:
    """The message for an address at which no scheduler answers."""
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
