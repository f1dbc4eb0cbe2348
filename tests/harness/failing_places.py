"""Places in the library's code where a call of libc is made to fail: libfsocket_apps/failing_places.c."""

import re
import subprocess
from pathlib import Path

from fastsocket.build import HERE, LIBRARY
from tests.harness.apps import compiled

# Of what the library takes from libc, the functions that make no system call, or one that cannot fail. Memory is not
# short here.
CANNOT_FAIL = {
    *("clock_gettime", "closedir", "dirfd", "dlsym", "fclose", "free", "getenv", "geteuid", "getpid", "getppid"),
    *("getresuid", "gettid", "malloc", "asprintf", "sched_yield", "snprintf", "vsnprintf"),
    *("pthread_mutex_lock", "pthread_mutex_unlock", "pthread_self", "pthread_setcancelstate", "pthread_sigmask"),
    *("sigaddset", "sigdelset", "sigemptyset", "sigfillset", "sigismember", "strerror"),
    *("memcmp", "memcpy", "memset", "strchr", "strcmp", "strcspn", "strlen", "strncmp", "strrchr", "strstr"),
    *("strtol", "strtoul", "environ"),
}
CANNOT_BE_WRAPPED = {"vfork", "_Fork", "_exit", "closefrom"}  # they do not return, or return twice, or return nothing


def replaced_calls() -> set[str]:
    """Those of calls.def, which the library stands before."""
    lines = (HERE / "libfsocket" / "calls.def").read_text()
    return set(re.findall(r"^CALL\([^,]*, (\w+)", lines, re.MULTILINE)) - CANNOT_BE_WRAPPED


def direct_calls() -> set[str]:
    """Those that the library takes from libc as any program does."""
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", LIBRARY], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1].partition("@")[0] for line in symbols.splitlines()}
    return {name for name in names if not name.startswith("_")} - CANNOT_FAIL


class FailingPlaces:
    def __init__(self, directory: Path):
        self._directory = directory
        self._above = self._compiled("above", replaced_calls(), "-DABOVE")
        self._below = self._compiled("below", replaced_calls() | direct_calls())

    def _compiled(self, name: str, calls: set[str], *options: str) -> Path:
        listed = " ".join(f"CALL({call})" for call in sorted(calls))
        (self._directory / name).mkdir()
        return compiled(
            "failing_places.c",
            self._directory / name,
            *options,
            f"-DCALLS={listed}",
            "-shared",
            "-fPIC",
            "-fvisibility=hidden",
            "-fno-builtin",
            "-ldl",
        )

    def environment(self, **variables: str) -> dict[str, str]:
        return {"LD_PRELOAD": f"{self._above} {LIBRARY} {self._below}", **variables}
