"""Time connect() with a source port that libfsocket.so chooses, against libc's connect(), where the kernel does.

python3 -m fastsocket.connect_cost                     a table, in about half a minute
python3 -m fastsocket.connect_cost --json > cost.json  for a program, with the same names as the table
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fastsocket.build import HERE, LIBRARY, BuildError, build
from fastsocket.call_cost.measure import Cost, measure, table

PROGRAM = HERE / "build" / "connect_cost"
MOST_CONNECTIONS = 100_000  # each takes some kilobytes of the kernel's memory

EPILOG = """\
All connections are over the loopback device of a network namespace that ends with the measurement, so that a connect()
has the whole handshake in it. The table's rows: without other connections; with many that go to other addresses; with
half of the local ports used for the address that is measured.

Exit status: 0, 2 usage, 3 it cannot be built or run here."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python3 -m fastsocket.connect_cost",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--library", type=Path, metavar="PATH", help=f"default: {LIBRARY}, brought up to date")
    parser.add_argument(
        "--processes",
        type=_up_to(1000),
        default=8,
        metavar="N",
        help="default: 8; with fewer than 6 there are no intervals",
    )
    parser.add_argument(
        "--connections",
        type=_up_to(MOST_CONNECTIONS),
        default=50_000,
        metavar="N",
        help=f"that exist meanwhile (default: 50000, at most {MOST_CONNECTIONS})",
    )
    parser.add_argument(
        "--rounds", type=_up_to(10_000), default=20, metavar="N", help="ABBA rounds in each process (default: 20)"
    )
    parser.add_argument("--batch", type=_up_to(10_000), default=50, metavar="N", help="calls in a batch (default: 50)")
    parser.add_argument("--json", action="store_true", help="an array of objects instead of the table")
    return parser


def _up_to(most: int) -> Callable[[str], int]:
    def positive(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise ValueError
        return number

    return positive


def _measure(options: argparse.Namespace) -> list[Cost]:
    build(f"build/{PROGRAM.name}")
    if not options.library:
        build(f"build/{LIBRARY.name}")
    privilege = [] if os.geteuid() == 0 else ["--map-root-user"]
    program = [
        "env",
        "FSOCKET_FLOW_DELIVER=on",
        "unshare",
        "--net",
        *privilege,
        str(PROGRAM),
        *map(str, (options.connections, options.rounds, options.batch)),
    ]
    return measure(program, (options.library or LIBRARY).resolve(), options.processes)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        costs = _measure(options)
    except (BuildError, subprocess.CalledProcessError) as error:
        print(f"connect_cost: {error}", file=sys.stderr)
        return BuildError.exit_status
    print(json.dumps([asdict(cost) for cost in costs], indent=1) if options.json else table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
