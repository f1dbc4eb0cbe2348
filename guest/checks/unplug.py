"""Is a connection lost when a CPU goes offline, and when it comes back, under load from the other CPUs?"""

import tempfile
from collections import Counter
from pathlib import Path

from guest.checks import CPUS, No, answer
from tests.harness.load import Load
from tests.harness.servers import Served, nginx, served
from tests.harness.waiting import wait_until

BETWEEN = 300  # connections before the CPU goes offline, while it is offline, and after it is back
GONE = CPUS[1]
PATIENCE = 300  # seconds, under emulation


def check() -> str:
    """How many connections were answered, and how many took longer than five seconds. Raises No where any was lost."""
    switch = Path(f"/sys/devices/system/cpu/cpu{GONE}/online")
    server = nginx("nginx", workers=len(CPUS))
    with tempfile.TemporaryDirectory() as folder, served(server, Path(folder), preload=True) as one:
        total = _loaded(one, switch)
    lost = {outcome: total[outcome] for outcome in ("refused", "reset", "unanswered", "wrong") if total[outcome]}
    if lost:
        raise No(f"of {total['ok']} that were answered, lost: {lost}")
    late = f"; {total['hung']} took over 5 s" if total["hung"] else ""
    return f"{total['ok']} ok, none refused, reset or wrong{late}"


def _loaded(one: Served, switch: Path) -> Counter[str]:
    with one.load([cpu for cpu in CPUS if cpu != GONE]) as load:
        for state in ("1", "0", "1"):
            switch.write_text(state)
            _wait_for_more(load)
    total: Counter[str] = load.total()
    return total


def _wait_for_more(load: Load) -> None:
    goal = _answered(load) + BETWEEN
    wait_until(lambda: _answered(load) >= goal, f"{BETWEEN} more connections", PATIENCE)


def _answered(load: Load) -> int:
    return sum(load.ask().values(), Counter())["ok"]


if __name__ == "__main__":
    answer(check)
