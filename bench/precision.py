"""Adding blocks to a run until it is precise enough."""

from bench.schedule import expected_seconds, schedule
from records.run import Options

ADDED_BLOCKS = 5  # at a time: looking after each block would find a narrow interval by chance


def goes_on(options: Options, seconds_left: float) -> bool:
    """Whether more blocks fit into the time."""
    slots = schedule(options)
    return expected_seconds(slots, options) * ADDED_BLOCKS / options.blocks <= seconds_left
