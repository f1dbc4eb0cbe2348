"""Run a published test suite without and with libfsocket.so, and tell which tests fail only with it.

python3 -m tests.published cpython                      the interpreter's own tests of sockets, servers, processes
python3 -m tests.published cpython --pinned             on one CPU, where a server of one process adopts its clone
python3 -m tests.published nginx --long --keep logs     all of nginx-tests; what each script printed goes to logs/
python3 -m tests.published cpython --only test_socket   one unit; --only may be repeated, and takes patterns
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

from fastsocket.build import LIBRARY, BuildError, build
from tests.published.compare import Comparison, compare
from tests.published.run import Way, can_isolate
from tests.published.suites import SUITES, NoSuchUnit, SuiteError, Unit

EPILOG = """\
A test that fails only with the library is run again, in both ways: one that never fails a second time, or that fails
without the library too, is a flake and said to be one.

As root every unit runs in network and process namespaces of its own. Servers that are one unpinned process never adopt
a clone, so run every suite with --pinned, too.

Exit status: 0 the library added no failure, 1 it did, 2 usage, 3 the suite cannot be had here, 130 Ctrl-C, which ends
it after the units that are running."""
INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python3 -m tests.published",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", nargs="?", choices=SUITES, metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--list", action="store_true", help="list the suites; with SUITE, its units")
    parser.add_argument("--long", action="store_true", help="also the units that take long or have little to say")
    parser.add_argument("--pinned", action="store_true", help="run both ways on one CPU")
    parser.add_argument("--only", action="append", metavar="UNIT", help="only the units that match, such as test_s*")
    parser.add_argument("--source", type=Path, metavar="PATH", help="what is here already: --list says of what")
    parser.add_argument("--library", type=Path, metavar="PATH", help=f"default: {LIBRARY}, brought up to date")
    parser.add_argument(
        "--reruns", type=_positive, default=4, metavar="N", help="of what failed only with it (default: 4)"
    )
    parser.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="units side by side (default: 1; needs root)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what every unit printed")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _library(path: Path | None) -> Path:
    """Where the library is, known to load: the dynamic linker only warns about one that does not."""
    if not path:
        build(f"build/{LIBRARY.name}")
    library = (path or LIBRARY).resolve()
    tried = subprocess.run(["env", f"LD_PRELOAD={library}", "true"], capture_output=True, text=True)
    if tried.stderr:
        raise SuiteError(f"{tried.stderr.strip()}; build it with make -C fastsocket, or name another with --library")
    return library


def _units(options: argparse.Namespace) -> list[Unit]:
    units = SUITES[options.suite].units(options.source and options.source.absolute(), options.long or options.only)
    chosen = [unit for unit in units if any(fnmatch(unit.name, pattern) for pattern in options.only or ["*"])]
    if not chosen:
        raise NoSuchUnit(f"no unit of {options.suite} matches {' '.join(options.only)}: --list names them")
    return chosen


def _compare_all(units: list[Unit], options: argparse.Namespace) -> Comparison:
    library = _library(options.library)
    ways = Way(None, options.pinned), Way(library, options.pinned)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    whole = Comparison()
    with ThreadPoolExecutor(options.jobs if can_isolate() else 1) as pool:
        running = {pool.submit(compare, unit, ways, options.reruns, keep=options.keep): unit for unit in units}
        try:
            for done in as_completed(running):
                part = done.result()
                whole.add(part)
                print(_line(running[done], part), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return whole


def _line(unit: Unit, part: Comparison) -> str:
    counts = {
        "passed": part.passed,
        "skipped": part.skipped,
        "failed either way": len(part.fail_both),
        "flaky": len(part.flakes),
        "ONLY WITH THE LIBRARY": len(part.differences),
    }
    return f"{unit.name:36} " + ", ".join(f"{number} {what}" for what, number in counts.items() if number)


def _report(whole: Comparison) -> None:
    for heading, lines in (
        ("Fail without the library as well:", whole.fail_both),
        ("Flakes:", whole.flakes),
        ("Fail only with the library:", whole.differences),
    ):
        if lines:
            print("", heading, *(f"  {line}" for line in lines), sep="\n")
    print(
        f"\n{whole.passed} tests passed with the library, {whole.skipped} were skipped; "
        f"failures that it added: {len(whole.differences)}."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.suite:
        if not options.list:
            parser.error("which suite? --list names them")
        print(*(f"{name:10} {suite.summary}" for name, suite in SUITES.items()), sep="\n")
        return 0
    try:
        units = _units(options)
        if options.list:
            print(*(unit.name for unit in units), sep="\n")
            return 0
        whole = _compare_all(units, options)
    except (SuiteError, NoSuchUnit, BuildError) as error:
        print(f"tests.published: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    _report(whole)
    return 1 if whole.differences else 0


if __name__ == "__main__":
    sys.exit(main())
