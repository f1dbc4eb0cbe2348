"""Running a unit of a suite, away from all else on the machine, with or without the library."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.published.outcomes import Result
from tests.published.suites import Unit

TIMEOUT = 300  # seconds; the longest unit takes a third of it
TIMED_OUT = 124  # as timeout(1) says

# Ports, and processes left behind, are the unit's own. Its first process is a shell, because to process 1 most signals
# do nothing.
_NAMESPACES = (
    "unshare",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "bash",
    "-c",
    'ip link set lo up; "$@"; exit $?',
    "-",
)


@dataclass(frozen=True)
class Way:
    """How units are run: with a preloaded library or none, on all CPUs or on one."""

    library: Path | None = None
    pinned: bool = False

    @property
    def name(self) -> str:
        return "library" if self.library else "bare"

    def prefix(self) -> tuple[str, ...]:
        words = _NAMESPACES if can_isolate() else ()
        if self.pinned:
            words += ("taskset", "-c", str(min(os.sched_getaffinity(0))))
        if self.library:
            words += ("env", f"LD_PRELOAD={self.library}")
        return words


@cache
def can_isolate() -> bool:
    """Whether units get network and process namespaces of their own; without, they must not run side by side."""
    return (
        bool(shutil.which("unshare") and shutil.which("ip"))
        and subprocess.run([*_NAMESPACES, "true"], capture_output=True).returncode == 0
    )


def run(unit: Unit, way: Way, tests: Sequence[str] = (), keep: Path | None = None) -> Result:
    """Run these tests of a unit, or all; what it prints goes to a file in keep as well."""
    with tempfile.TemporaryDirectory(prefix="suite-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        log = scratch / "output"
        status = _run([*way.prefix(), *unit.command_for(tests)], unit, scratch, log)
        output = log.read_text(errors="replace")
        if keep:
            (keep / f"{unit.name}.{way.name}.log").write_text(output)
        return unit.read(output, scratch, status)


def _run(command: list[str], unit: Unit, scratch: Path, log: Path) -> int:
    environment = {**os.environ, **unit.environment, "TMPDIR": str(scratch)}
    environment.pop("LD_PRELOAD", None)
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=unit.directory or scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            status = TIMED_OUT
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return 128 - status if status < 0 else status
