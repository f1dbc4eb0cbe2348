"""What a guest is asked: each check is a module that runs in the guest, from the checkout, and prints one line of JSON.

python -m guest.checks.NAME [ARGUMENTS]     {"ok": true, "said": "…"}; said is short, for a cell of a table
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fastsocket.servers import survey
from tests.harness.locality import adopters
from tests.harness.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = [sys.executable, str(ROOT / "lab.py"), "--yes"]
FASTSOCKET = [sys.executable, "-m", "fastsocket"]
CPUS = sorted(os.sched_getaffinity(0))


def accepted(pid: int) -> tuple[Counter[int], Counter[int]]:
    """Connections by CPU that the server counts as local, and those that another worker accepted, because the CPU's own
    was away."""
    (server,) = survey().of([pid])
    local = Counter({cpu.cpu: cpu.accepted_local for cpu in server.counters})
    return local, Counter({cpu.cpu: cpu.given_late + cpu.given_left for cpu in server.counters})


def wait_until_adopted(pid: int) -> None:
    """A worker watches its listener before it waits, and gets a local listener when it waits."""
    wait_until(lambda: adopters(pid) == dict.fromkeys(CPUS, 1), f"a worker on each of the CPUs {CPUS}")


class No(Exception):
    """The answer is no; the message says why."""


def answer(check: Callable[..., str]) -> None:
    """Print what the check says, or why it says no. What else goes wrong is a defect of the check, and shows where."""
    try:
        said, ok = check(*sys.argv[1:]), True
    except (No, AssertionError) as error:
        said, ok = str(error), False
    print(json.dumps({"ok": ok, "said": said}))


def output(command: list[str], allowed: tuple[int, ...] = (0,)) -> str:
    """What a command says. Raises No with the last line of its complaint when it ends with another status."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode not in allowed:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        named = " ".join(Path(word).name for word in command[:5])
        raise No(f"{named} ended with {done.returncode}: {last}")
    return done.stdout
