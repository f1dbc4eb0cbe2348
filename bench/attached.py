"""Runs fastsocket attach for as long as a trial takes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from workloads.process import WorkloadError, running

COMMAND = [sys.executable, "-m", "fastsocket", "attach", "--json"]


@contextmanager
def attached(pids: list[int]) -> Iterator[None]:
    """Attach to each of these servers until the context ends. Raises WorkloadError with the reason if attach fails."""
    with ExitStack() as stack:
        for pid in pids:
            process = stack.enter_context(
                running([*COMMAND, str(pid)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            if not process.stdout or not process.stderr or not process.stdout.readline():
                raise WorkloadError(process.stderr.read().strip() if process.stderr else "attach said nothing")
        yield
