"""Ctrl-C and SIGTERM end what runs in order, once."""

import signal


def end_once() -> None:
    """From now on the first of these signals raises KeyboardInterrupt. The process ignores further ones while it takes
    everything down."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
