"""All packets come to the first CPU, and Balance is on: do other CPUs' workers serve some of the connections?

They serve where the first CPU's worker stays away for 1 ms or has a long queue. That happens often in an emulator, and
perhaps never on a calm machine.
"""

from collections import Counter

from bench.schedule import Slot
from bench.sweep import bench
from guest.checks import CPUS, No, answer
from records.run import Placement
from records.trials import Trial
from tests.harness.locality import ACCEPTED
from topologies.queue_threads import choose

PLACEMENT = Placement(cores=len(CPUS), server_cpus=CPUS, load_cpus=CPUS)
SECONDS = 4


def check() -> str:
    """How many connections the first CPU's worker accepted, and the least and the most that another worker accepted."""
    with bench(["nginx"], len(CPUS), choose(None)) as (trials, _):
        trial = trials.run(Slot(0, 0, "nginx", "balanced", False, len(CPUS)), PLACEMENT, SECONDS, one_queue=True)
    served = _by_worker(trial)
    first, *others = (served[cpu] for cpu in CPUS)
    said = f"CPU {CPUS[0]} {first}, the others {min(others)} to {max(others)}"
    if not all([first, *others]):
        raise No(f"{said}: a worker served nothing")
    return said


def _by_worker(trial: Trial) -> Counter[int]:
    served: Counter[int] = Counter()
    for of in trial.library or []:
        served[of.cpu] += sum(of.counts[f"accepted_{how}"] for how in ACCEPTED)
    return served


if __name__ == "__main__":
    answer(check)
