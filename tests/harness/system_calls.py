"""System calls by name, and one that fails: libfsocket_apps/failing.c."""

import errno
import re
import subprocess
from functools import cache
from pathlib import Path

from fastsocket.build import LIBRARY
from tests.harness.apps import compiled
from tests.harness.needs import need


@cache
def numbers_by_name() -> dict[str, int]:
    """Of this machine's kind."""
    need("gcc")
    headers = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-"], input="", capture_output=True, text=True, check=True
    ).stdout
    return {name: int(number) for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", headers, re.MULTILINE)}


def sleeps_in(calls: tuple[str, ...], thread: int) -> bool:
    """proc(5), /proc/PID/syscall: the number of the call in which the thread sleeps."""
    number = Path(f"/proc/{thread}/syscall").read_text().split()[0]
    return number in {str(numbers_by_name().get(name)) for name in calls}


def sleeps_in_poll(pid: int) -> bool:
    return sleeps_in(("poll", "ppoll"), pid)


def sleeps_in_epoll_wait(thread: int) -> bool:
    return sleeps_in(("epoll_wait", "epoll_pwait", "epoll_pwait2"), thread)


class Failing:
    """Environments that load the library in a process whose system calls fail."""

    def __init__(self, directory):
        self._shim = compiled("failing.c", directory, "-shared", "-fPIC")

    def __call__(self, call: str, error: int = errno.EPERM, **arguments: int | tuple[int, int]) -> dict[str, str]:
        """Where each of these arguments (a0 to a5) is this number, or in this range, the call fails with error."""
        words = [numbers_by_name()[call], error]
        for name, value in arguments.items():
            words += [int(name.removeprefix("a")), *(value if isinstance(value, tuple) else (value, value))]
        return {"LD_PRELOAD": f"{self._shim} {LIBRARY}", "FAIL": " ".join(map(str, words))}
