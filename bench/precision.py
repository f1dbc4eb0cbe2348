"""How blocks are added to a run until it is precise enough (--precision)."""

from bench.schedule import expected_seconds, schedule
from records.run import Options

ADDED_BLOCKS = 5  # blocks added at a time: a look after each block would find a narrow interval by chance


def goes_on(options: Options, seconds_left: float) -> bool:
    """Whether ADDED_BLOCKS more blocks fit into the time that is left."""
    slots = schedule(options)
    return expected_seconds(slots, options) * ADDED_BLOCKS / options.blocks <= seconds_left
