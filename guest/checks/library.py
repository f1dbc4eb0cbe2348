"""The library's own tests, except tests of sanitizers and of the compiler, which say nothing about a kernel.

They test a build of the library in which neighbours wait 100 times as long before they take a connection. In an
emulated guest a worker may not come back to its loop within the usual eight milliseconds. Neighbours would then take
connections that the tests expect at that worker.
"""

import os
import re
import subprocess
import sys

from fastsocket.build import EMULATED
from guest.checks import ROOT, No, answer

OF_A_KERNEL = "not sanitized and not threads_do_not_race and not exported_symbols"
PYTEST = [sys.executable, "-m", "pytest", "-q", "--timeout", "600", "-k", OF_A_KERNEL]
FILES = ["tests/test_libfsocket.py"]
ENVIRONMENT = {**os.environ, "FASTSOCKET_LIBRARY": str(EMULATED)}


def check() -> str:
    """How many tests pass. Failed tests run a second time on their own: an emulator may stop a CPU for a second."""
    counts, failed = _run(FILES)
    if failed:
        again, still = _run(failed)
        if still:
            raise No(f"{counts}; again on their own: {again}: {', '.join(name.partition('::')[2] for name in still)}")
        return f"{counts}; those passed on their own"
    return counts


def _run(which: list[str]) -> tuple[str, list[str]]:
    done = subprocess.run([*PYTEST, *which], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    if done.returncode not in (0, 1):
        raise No(f"pytest ended with {done.returncode}: {last}")
    return re.sub(r" in \d.*", "", last.strip("= ")), failed


if __name__ == "__main__":
    answer(check)
