"""Time the replaced calls on descriptors that libfsocket.so does not care for.

The first row is the method's own error: libc's close() against itself. A call that the library does not replace has no
row.
"""

import argparse
from collections.abc import Callable

from fastsocket.build import HERE

PROGRAM = HERE / "build" / "cost_call"
CONTROL = "control"
DEFAULTS = {"processes": 21, "rounds": 100, "batch": 200}


def add_options(parser: argparse.ArgumentParser, up_to: Callable[[int], Callable[[str], int]]) -> None:
    parser.add_argument("--limit", type=float, metavar="NS", help="what a call may cost more than libc's")


def command(options: argparse.Namespace) -> list[str]:
    return [str(PROGRAM), str(options.rounds), str(options.batch)]
