"""Does fastsocket status agree with the CPUs where connections came from, and with the workers that served them?"""

import tempfile
from pathlib import Path

from guest.checks import CPUS, No, accepted, answer, wait_until_adopted
from tests.harness.locality import MOSTLY
from tests.harness.servers import Served, nginx, served

EACH = 60


def check() -> str:
    """How many connections were counted as local. Raises No where the counts are wrong.

    Each connection must be counted on the CPU that it came from, as local or as given to a neighbour, and few may be
    given. The CPUs send in turns: an emulator runs busy CPUs one after the other, and with eight of them it would stop
    a worker for so long that a neighbour serves its clients.
    """
    server = nginx("nginx", workers=len(CPUS))
    with tempfile.TemporaryDirectory() as folder, served(server, Path(folder), preload=True) as one:
        wait_until_adopted(one.pid)
        before = accepted(one.pid)
        answered = {cpu: _answered(one, cpu) for cpu in CPUS}
        local, late = (now - then for now, then in zip(accepted(one.pid), before))
    told = {cpu: local[cpu] + late[cpu] for cpu in CPUS}
    if told != answered or set(answered.values()) != {EACH} or local.total() < EACH * len(CPUS) * MOSTLY / 100:
        raise No(f"answered by CPU {answered}, of them local by status {dict(local)}, given to others {dict(late)}")
    return f"{local.total()} of {EACH * len(CPUS)}" + (f", {late.total()} given to neighbours" if late else "")


def _answered(server: Served, cpu: int) -> int:
    with server.load([cpu], EACH) as load:
        load.wait()
    return int(load.counts[cpu]["ok"])


if __name__ == "__main__":
    answer(check)
