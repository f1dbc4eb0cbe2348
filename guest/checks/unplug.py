"""Is a connection lost when a CPU goes, and when it comes back, under load from the other CPUs?"""

import tempfile
from collections import Counter
from pathlib import Path

from guest.checks import CPUS, No, answer
from tests.servers import Served, nginx, served, wait_until

BETWEEN = 300  # connections before, without, and after that CPU
GONE = CPUS[1]
PATIENCE = 300  # seconds, under emulation


def check() -> str:
    """How many connections there were, and how many of them took longer than five seconds."""
    switch = Path(f"/sys/devices/system/cpu/cpu{GONE}/online")
    with tempfile.TemporaryDirectory() as folder, served(nginx("nginx", workers=len(CPUS)), Path(folder), preload=True) as one:
        total = _loaded(one, switch)
    lost = {outcome: total[outcome] for outcome in ("refused", "reset", "unanswered", "wrong") if total[outcome]}
    if lost:
        raise No(f"of {total['ok']} that were answered, lost: {lost}")
    return f"{total['ok']} ok, none refused, reset or wrong" + (f"; {total['hung']} took over 5 s" if total["hung"] else "")


def _loaded(one: Served, switch: Path) -> Counter:
    with one.load([cpu for cpu in CPUS if cpu != GONE]) as load:
        for state in ("1", "0", "1"):
            switch.write_text(state)
            goal = sum(load.ask().values(), Counter())["ok"] + BETWEEN
            wait_until(lambda: sum(load.ask().values(), Counter())["ok"] >= goal, f"{BETWEEN} more connections", PATIENCE)
    return load.total()


if __name__ == "__main__":
    answer(check)
