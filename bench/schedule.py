"""The order of trials: ABBA blocks, so that a slow drift of the machine cancels out of every comparison.

For each workload and core count a block runs all arms once, and then once more in reverse: A B C C B A. The two trials
of each arm then lie around the same point in time. So a drift that is linear over the block adds the same to all arms
(Box, Hunter, Hunter: Statistics for Experimenters, on blocking). The order of the arms is drawn anew for each block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from records.run import Options
from records.trials import BASE
from workloads import WORKLOADS

OVERHEAD_SECONDS = 0.25  # per trial, to start and stop the server; only the estimate of a sweep's length uses it


@dataclass(frozen=True)
class Slot:
    """A place in the schedule: one trial that is to be run."""

    index: int
    block: int
    workload: str
    variant: str
    control: bool
    cores: int


def schedule(options: Options) -> list[Slot]:
    """All trials of a run in the order in which they run. The same options give the same order."""
    if options.why_not:
        return []
    drawn = [draw for block in range(options.blocks) for draw in _block(options, block)]
    return [Slot(index, *draw) for index, draw in enumerate(drawn)]


def _block(options: Options, block: int) -> Iterator[tuple[int, str, str, bool, int]]:
    random = Random(f"{options.seed}/{block}")
    settings = [(workload, cores) for workload in options.workloads for cores in options.cores]
    random.shuffle(settings)
    for workload, cores in settings:
        order = _arms(options, workload)
        random.shuffle(order)
        for variant, control in order + order[::-1]:
            yield block, workload, variant, control, cores


def _arms(options: Options, workload: str) -> list[tuple[str, bool]]:
    control = [(BASE, True)] if BASE in options.variants else []  # the A/A control
    lacking = options.lacking.get(workload, {})
    return [(variant, False) for variant in options.variants if variant not in lacking] + control


def expected_seconds(slots: list[Slot], options: Options) -> float:
    """About how many seconds these trials will take."""
    own = sum(WORKLOADS[slot.workload].preparation_seconds for slot in slots)
    return own + len(slots) * (options.loads * options.seconds + OVERHEAD_SECONDS)
