"""Starting a process in a host, and never leaving it behind."""

import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

STOP_SECONDS = 5
POLL_SECONDS = 0.005


class WorkloadError(Exception):
    """A server or load generator is missing, does not start or fails; the message says which, and its own words."""

    exit_status = 3


@contextmanager
def running(command: list[str], **popen):
    """A process in a session of its own, so that a Ctrl-C on the terminal reaches only us; ended on leaving."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **popen)
    except FileNotFoundError as error:
        raise WorkloadError(f"{error.filename} is not installed") from error
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """The pids of a process's children; none if it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def until(is_ready, process: subprocess.Popen, seconds: float) -> bool:
    """Ask until the answer is yes. False: the process ended first, or the time did."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
