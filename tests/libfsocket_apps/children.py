"""Work in a process of its own, and what that process saw until it ended, however it ended."""

import json
import mmap
import os
import select
import signal
import traceback
from collections.abc import Callable

JOURNAL_SIZE = 1 << 20


class Journal:
    """Lines in memory shared with the parent: what a child that hangs or crashes has seen until then is kept."""

    def __init__(self):
        self._memory = mmap.mmap(-1, JOURNAL_SIZE)

    def write(self, entry) -> None:
        self._memory.write(json.dumps(entry).encode() + b"\n")

    def read(self) -> list:
        self._memory.seek(0)
        entries = []
        while (line := self._memory.readline()).endswith(b"\n"):
            entries.append(json.loads(line))
        return entries


def wait_for(child: int, seconds: float | None) -> str | None:
    """How it ended, unless well."""
    pidfd = os.pidfd_open(child)
    hung = not select.select([pidfd], [], [], seconds)[0]
    os.close(pidfd)
    if hung:
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "hung" if hung else f"ended with {status}" if status else None


def in_child(work: Callable[[Journal], None], seconds: float | None = None) -> list:
    """What work() wrote in a process of its own; one with a limit leads a group, which ends with it."""
    journal = Journal()
    child = os.fork()
    if child:
        ending = wait_for(child, seconds)
        return journal.read() + ([["process", ending]] if ending else [])
    status = 1
    try:
        if seconds:
            os.setpgid(0, 0)
        work(journal)
        status = 0
    except BaseException:  # not back into the parent's code, whatever it was
        traceback.print_exc()
    finally:
        os._exit(status)
