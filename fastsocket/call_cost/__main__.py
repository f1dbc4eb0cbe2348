"""Time the interposed libc calls on descriptors that libfsocket.so does not care for, against libc's own.

python3 -m fastsocket.call_cost                     a table, in about 20 seconds
python3 -m fastsocket.call_cost --limit 10          exit 1 where a call is surely dearer by more than 10 ns
python3 -m fastsocket.call_cost --json > cost.json  for a program, with the same names as the table
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from fastsocket.build import HERE, LIBRARY, BuildError, build
from fastsocket.call_cost.measure import Cost, measure, table

PROGRAM = HERE / "build" / "call_cost"
CONTROL = "control"

EPILOG = """\
The first row is the method's own error: libc's close() against itself. A call that the library does not interpose has
no row. An interval that spans zero says that no difference was found.

Exit status: 0, 1 a call is dearer than --limit, 2 usage, 3 it cannot be built or loaded here."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python3 -m fastsocket.call_cost",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--library", type=Path, metavar="PATH", help=f"default: {LIBRARY}, brought up to date")
    parser.add_argument(
        "--processes",
        type=_positive,
        default=21,
        metavar="N",
        help="default: 21; with fewer than 6 there are no intervals",
    )
    parser.add_argument("--rounds", type=_positive, default=100, metavar="N", help="ABBA rounds in each (default: 100)")
    parser.add_argument("--batch", type=_positive, default=200, metavar="N", help="calls in a batch (default: 200)")
    parser.add_argument("--limit", type=float, metavar="NS", help="what a call may cost more")
    parser.add_argument("--json", action="store_true", help="an array of objects instead of the table")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _dearer(costs: list[Cost], limit: float) -> list[Cost]:
    return [cost for cost in costs if cost.added_low is not None and cost.added_low > limit]


def _measure(options: argparse.Namespace) -> list[Cost]:
    build(f"build/{PROGRAM.name}")
    if not options.library:
        build(f"build/{LIBRARY.name}")
    program = [str(PROGRAM), str(options.rounds), str(options.batch)]
    return measure(program, (options.library or LIBRARY).resolve(), options.processes)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        costs = _measure(options)
    except (BuildError, subprocess.CalledProcessError) as error:
        print(f"call_cost: {error}", file=sys.stderr)
        return BuildError.exit_status
    if all(cost.call == CONTROL for cost in costs):
        print("call_cost: nothing is interposed: did the library load?", file=sys.stderr)
        return BuildError.exit_status
    print(json.dumps([asdict(cost) for cost in costs], indent=1) if options.json else table(costs))
    dearer = _dearer(costs, options.limit) if options.limit is not None else []
    for cost in dearer:
        print(f"{cost.call} on {cost.on} is dearer than libc's by more than {options.limit:g} ns", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
