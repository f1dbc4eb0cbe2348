"""Start the processes of a guest. They end with this process, whatever ends it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workloads.process import ending_with_us


@contextmanager
def started(command: list[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process. It is killed at the end of the with block, and by the kernel when this process is killed.

    It gets a session of its own, so that Ctrl-C reaches only this process. Call this from the main thread: the kernel
    kills the process when the thread that made it ends.
    """
    process = subprocess.Popen(
        ending_with_us(command),
        start_new_session=True,
        **{"stdin": subprocess.DEVNULL, **how},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
