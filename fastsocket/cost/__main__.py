"""Time the calls that libfsocket.so replaces against libc's own.

python3 -m fastsocket.cost call                     descriptors that the library does not care for, in about 20 seconds
python3 -m fastsocket.cost call --limit 10          exit 1 where a call surely costs more than 10 ns extra
python3 -m fastsocket.cost connect                  connect() with a source port of its CPU, in about half a minute
python3 -m fastsocket.cost connect --json > FILE    for a program, with the same names as the table
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from fastsocket.build import LIBRARY, BuildError, build
from fastsocket.cost import call, connect
from fastsocket.cost.measure import Cost, measure, table

EPILOG = """\
An interval that spans zero says that no difference was found.

Exit status: 0, 1 a call costs more than --limit, 2 usage, 3 it cannot be built or run here."""


def up_to(most: int) -> Callable[[str], int]:
    def positive(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise ValueError
        return number

    return positive


def _parser() -> argparse.ArgumentParser:
    parser = _described("python3 -m fastsocket.cost", __doc__, EPILOG, argparse.ArgumentParser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="call | connect")
    for benchmark in (call, connect):
        name = benchmark.__name__.rpartition(".")[2]
        command = _described(name, benchmark.__doc__, EPILOG, commands.add_parser)
        command.set_defaults(benchmark=benchmark)
        _add_common_options(command, benchmark)
        benchmark.add_options(command, up_to)
    return parser


def _described(
    name: str, description: str | None, epilog: str, make: Callable[..., argparse.ArgumentParser]
) -> argparse.ArgumentParser:
    return make(name, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)


def _add_common_options(parser: argparse.ArgumentParser, benchmark: ModuleType) -> None:
    def number(name: str, most: int, meaning: str) -> None:
        default = benchmark.DEFAULTS[name]
        parser.add_argument(f"--{name}", type=up_to(most), default=default, metavar="N", help=meaning.format(default))

    parser.add_argument("--library", type=Path, metavar="PATH", help=f"default: {LIBRARY}, brought up to date")
    number("processes", 1000, "default: {}; with fewer than 6 there are no intervals")
    number("rounds", 10_000, "ABBA rounds in each process (default: {})")
    number("batch", 10_000, "calls in a batch (default: {})")
    parser.add_argument("--json", action="store_true", help="an array of objects instead of the table")


def _measure(options: argparse.Namespace) -> list[Cost]:
    program = options.benchmark.PROGRAM
    build(f"build/{program.name}")
    if not options.library:
        build(f"build/{LIBRARY.name}")
    return measure(options.benchmark.command(options), (options.library or LIBRARY).resolve(), options.processes)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        costs = _measure(options)
    except (BuildError, subprocess.CalledProcessError) as error:
        print(f"cost: {error}", file=sys.stderr)
        return BuildError.exit_status
    if not any(cost.call != call.CONTROL for cost in costs):
        print("cost: no call is replaced: did the library load?", file=sys.stderr)
        return BuildError.exit_status
    print(json.dumps([asdict(cost) for cost in costs], indent=1) if options.json else table(costs))
    return _judge(costs, getattr(options, "limit", None))


def _judge(costs: list[Cost], limit: float | None) -> int:
    """The exit status: 1 if some call surely costs more than the limit. Prints a line for each such call."""
    dearer = [cost for cost in costs if limit is not None and cost.added_low is not None and cost.added_low > limit]
    for cost in dearer:
        print(f"{cost.call} on {cost.on} costs more than {limit:g} ns over libc's", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
