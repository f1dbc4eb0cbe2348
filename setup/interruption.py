"""Let Ctrl-C and SIGTERM end the program in order, once."""

import signal


def end_once() -> None:
    """Make the first SIGINT or SIGTERM raise KeyboardInterrupt. The process ignores further ones while it cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
