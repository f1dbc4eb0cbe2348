"""Time connect() when libfsocket.so chooses the source port, against libc's connect(), where the kernel does.

All connections are over the loopback device of a network namespace that ends with the measurement, so a connect() has
the whole handshake in it. The table's rows: without other connections; with many that go to other addresses; with half
of the local ports used for the address that is measured.
"""

import argparse
import os
from collections.abc import Callable

from fastsocket.build import HERE

PROGRAM = HERE / "build" / "cost_connect"
DEFAULTS = {"processes": 8, "rounds": 20, "batch": 50}
MOST_CONNECTIONS = 100_000  # each takes some kilobytes of the kernel's memory


def add_options(parser: argparse.ArgumentParser, up_to: Callable[[int], Callable[[str], int]]) -> None:
    parser.add_argument(
        "--connections",
        type=up_to(MOST_CONNECTIONS),
        default=50_000,
        metavar="N",
        help=f"that exist meanwhile (default: 50000, at most {MOST_CONNECTIONS})",
    )


def command(options: argparse.Namespace) -> list[str]:
    privilege = [] if os.geteuid() == 0 else ["--map-root-user"]
    numbers = map(str, (options.connections, options.rounds, options.batch))
    return ["env", "FSOCKET_FLOW_DELIVER=on", "unshare", "--net", *privilege, str(PROGRAM), *numbers]
