"""The processes of a guest, which end with us, whatever ends us."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workloads.process import ending_with_us


@contextmanager
def started(command: list[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Killed on leaving, and by the kernel when we are killed.

    In a session of its own, so that a Ctrl-C reaches us alone. To be called by the main thread: the kernel's word is
    about the thread that made the process.
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
