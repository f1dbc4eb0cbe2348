"""Start processes in a host, and never leave them behind."""

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from fastsocket.processes import family, numbers, stat_fields
from workloads import limits

Process: TypeAlias = "subprocess.Popen[Any]"  # its pipes have text or bytes, as the caller likes
STOP_SECONDS = 5
POLL_SECONDS = 0.005
ERROR_LINES_SHOWN = 5
IF_WE_LIVE = 'test $PPID = "$0" && exec "$@"'


class WorkloadError(Exception):
    """A server or load generator is missing, does not start or fails. The message says which, with its own words."""

    exit_status = 3


@contextmanager
def running(command: list[str], **popen: Any) -> Iterator[Process]:
    """Run a process until the end of the with block, in a session of its own: Ctrl-C reaches only this process.

    Raises WorkloadError when the command is not installed.
    """
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **popen)
    except FileNotFoundError as error:
        raise WorkloadError(f"{error.filename} is not installed") from error
    try:
        yield process
    finally:
        _end(process)


def ending_with_us(command: list[str]) -> list[str]:
    """The command line that runs a command so that the kernel kills it when the calling thread ends, however it ends.

    An exec keeps this setting (prctl(2), PR_SET_PDEATHSIG). If we end before it is set, the command does not start.
    """
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", IF_WE_LIVE, str(os.getpid()), *command]


def _end(process: Process) -> None:
    """End a process with its descendants and all of its session.

    A server's master may end before its workers do, and the workers would still hold the port.
    """
    lives = process.poll() is None
    with ExitStack() as descriptors:
        members = open_all([*{*(family(process.pid) if lives else []), *_session(process.pid)}], descriptors)
        for member in [] if lives else members:
            _tell(member, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        for member in still_running(members, STOP_SECONDS):
            _tell(member, signal.SIGKILL)
        process.wait()


def _session(leader: int) -> Iterator[int]:
    """The processes of a session, whose leader may have ended (proc(5), /proc/PID/stat)."""
    for pid in numbers("/proc"):
        with suppress(OSError):  # it has just ended
            if int(stat_fields(f"/proc/{pid}")[3]) == leader:
                yield pid


def _tell(member: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        signal.pidfd_send_signal(member, number)


def open_all(pids: list[int], descriptors: ExitStack) -> list[int]:
    """A pidfd of each process that still exists (pidfd_open(2)). A pidfd never comes to mean another process."""
    opened = []
    for pid in pids:
        with suppress(ProcessLookupError):
            opened.append(os.pidfd_open(pid))
            descriptors.callback(os.close, opened[-1])
    return opened


def still_running(members: list[int], seconds: float) -> list[int]:
    """The pidfds of the processes that do not end within these seconds."""
    deadline = time.monotonic() + seconds
    while members and time.monotonic() < deadline:
        ended, _, _ = select.select(members, [], [], deadline - time.monotonic())
        members = [member for member in members if member not in ended]
    return members


@contextmanager
def started(
    name: str, command: list[str], directory: Path, is_ready: Callable[[int], bool], **popen: Any
) -> Iterator[int]:
    """Run a server during the with block. Yields its process id once is_ready(process id) is true.

    The server's output goes to stderr.log in the directory. Raises WorkloadError when the server does not start, with
    the last lines of the .log files there.
    """
    with open(directory / "stderr.log", "ab") as log, running(command, stdout=log, stderr=log, **popen) as process:
        if not until(lambda: is_ready(process.pid), process, limits.read().start_seconds):
            raise WorkloadError(f"{name} does not start: {_last_words(directory)}")
        yield process.pid


def _last_words(directory: Path) -> str:
    lines = [line for log in sorted(directory.glob("*.log")) for line in log.read_text(errors="replace").splitlines()]
    return " | ".join(dict.fromkeys(lines[-ERROR_LINES_SHOWN:])) or "it said nothing"


def finish(process: Process, name: str, seconds: float) -> str:
    """What a load generator printed. seconds: how long its load takes. Raises WorkloadError if it fails or hangs."""
    timeout = seconds + limits.read().grace_seconds
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise WorkloadError(
            f"{name} did not end within {timeout:g} s: on a slow machine set {limits.PREFIX}GRACE_SECONDS"
        ) from error
    if process.returncode:
        raise WorkloadError(f"{name} failed: {_last_line(err) or _last_line(out) or 'it said nothing'}")
    return str(out)


def _last_line(text: str) -> str:
    """The last line that is not blank: there programs say what ended them. Empty where there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def reaped_cpu_seconds() -> float:
    """The CPU time of all children reaped so far (getrusage(2), RUSAGE_CHILDREN)."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def until(is_ready: Callable[[], bool], process: Process, seconds: float) -> bool:
    """Ask again until the answer is yes. False: the process ended first, or the time was over."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
