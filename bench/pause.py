"""Stops one worker of a server for a moment in the middle of a trial."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from fastsocket.processes import children


@contextmanager
def paused(after_seconds: float, seconds: float, server_pid: int, ports: range, scratch: Path) -> Iterator[None]:
    """Stop the server's first worker, or the server itself if it has no workers. The worker goes on when the context
    ends, at the latest.

    after_seconds: when the worker is stopped. seconds: for how long.
    """
    worker = (children(server_pid) or [server_pid])[0]
    over = Event()
    pause = Thread(target=_pause, args=(worker, over, after_seconds, seconds))
    pause.start()
    try:
        yield
    finally:
        over.set()
        pause.join()


def _pause(worker: int, over: Event, after_seconds: float, seconds: float) -> None:
    if over.wait(after_seconds):
        return
    os.kill(worker, signal.SIGSTOP)
    over.wait(seconds)
    os.kill(worker, signal.SIGCONT)
