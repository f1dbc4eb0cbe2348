"""The checks of a guest. Each check is a module that runs in the guest, from the checkout, and prints one line of JSON.

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
    """Two counts of a server's connections, by CPU.

    The first are connections that the server counts as local. The second are those that another CPU's worker accepted,
    because the CPU's own worker was away.
    """
    (server,) = survey().of([pid])
    local = Counter({cpu.cpu: cpu.accepted_local for cpu in server.counters})
    return local, Counter({cpu.cpu: cpu.given_late + cpu.given_left for cpu in server.counters})


def wait_until_adopted(pid: int) -> None:
    """Wait until a worker has adopted the local listener of each CPU. A worker adopts it when it first waits."""
    wait_until(lambda: adopters(pid) == dict.fromkeys(CPUS, 1), f"a worker on each of the CPUs {CPUS}")


class No(Exception):
    """A check's answer is no; the message says why."""


def answer(check: Callable[..., str]) -> None:
    """Print what a check says, or why it says no. Any other exception is a bug in the check: its traceback is shown."""
    try:
        said, ok = check(*sys.argv[1:]), True
    except (No, AssertionError) as error:
        said, ok = str(error), False
    print(json.dumps({"ok": ok, "said": said}))


def output(command: list[str], allowed: tuple[int, ...] = (0,)) -> str:
    """What a command prints. Raises No, with the command's last line on stderr, when its exit status is not allowed."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode not in allowed:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        named = " ".join(Path(word).name for word in command[:5])
        raise No(f"{named} ended with {done.returncode}: {last}")
    return done.stdout
