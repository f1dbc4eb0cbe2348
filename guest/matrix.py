"""Every check on every kernel and machine, each in a guest of its own; docs/kernels.md is written from the answers.

python3 -m guest.matrix                          all that this commit has not answered yet: hours
python3 -m guest.matrix --only 6.1/3/doctor      some, as KERNEL/MACHINE/CHECK; parts may be left out: 6.12//nic
python3 -m guest.matrix --page                   write the page of what is answered, run nothing
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import product
from typing import Any, Self

from fastsocket.build import EMULATED, HERE, make
from guest.kernels import NEWEST, kernel
from setup import bootstrap
from setup.bootstrap import ROOT, VENV_PYTHON

KERNELS = ("6.1", "6.12", NEWEST)
MACHINES = {"8": ["--cpus", "8"], "3": ["--cpus", "3"], "4x2": ["--cpus", "8", "--threads", "2"]}
HEADINGS = {"8": "8 CPUs", "3": "3 CPUs", "4x2": "4 cores of 2 threads"}
ANSWERS = ROOT / "results" / "kernels"
INTERRUPTED = 130  # exit status of lab.py
CHANGED = "-dirty"
PAGE = ROOT / "docs" / "kernels.md"


@dataclass(frozen=True)
class Check:
    """A check, which is a row of the page."""

    name: str
    title: str
    module: tuple[str, ...]
    seconds: int = 900
    options: tuple[str, ...] = ()  # further options of lab.py guest


CHECKS = (
    Check("doctor", "`lab.py doctor`", ("doctor",)),
    Check("programs", "BPF programs that load", ("programs",)),
    Check("library", "the library's tests", ("library",), seconds=5400),
    Check("nginx", "nginx: local %, base → fastsocket", ("locality", "nginx")),
    Check("haproxy", "HAProxy: local %, base → fastsocket", ("locality", "haproxy"), seconds=1800),
    Check("redis", "Redis: local %, base → fastsocket", ("locality", "redis"), seconds=1800),
    Check("status", "`fastsocket status` counts what came from each CPU", ("status",)),
    Check("measure", "`fastsocket measure` sees a live nginx, and its advice fits", ("measure",)),
    Check("balance", "all packets on one CPU, with Balance: connections by worker", ("balance",)),
    Check("unplug", "a CPU unplugged and plugged under load", ("unplug",)),
    Check("nic", "virtio_net, a queue for each CPU: `fastsocket nic` in each mode", ("nic",), options=("--net",)),
)

INTRODUCTION = """\
# Kernels and machines

Written by `python3 -m guest.matrix`, {date}: each cell is a check that ran in a guest of its own (`python3 lab.py
guest`), emulated by QEMU. No cell is a timing. A cell in bold is a no, with its reason. Commits: {commits}.
"""
LACKS = """\
## What a kernel lacks

| | came with |
|---|---|
| the tracepoint `sock_recv_length`: who reads on which core (local percentages, the walk) | Linux 6.3, 6e6eda44b939 |
| `SO_INCOMING_CPU` among `SO_REUSEPORT` listeners: the library | Linux 6.2, b261eda84ec1; Debian's 6.1 has it |
| `IP_LOCAL_PORT_RANGE`: Receive Flow Deliver | Linux 6.3, 91d0b78c5177; Debian's 6.1 has it |
| bounds of a number that survive a byte swap in BPF, so the programs say them again | later than 6.12 |
"""


@dataclass(frozen=True)
class Cell:
    """One check on one kernel and machine."""

    kernel: str
    machine: str
    check: Check

    @property
    def name(self) -> str:
        return f"{self.kernel}/{self.machine}/{self.check.name}"

    def is_chosen(self, only: str) -> bool:
        """Whether --only KERNEL/MACHINE/CHECK chooses this cell. An empty part stands for any."""
        return all(wanted in ("", have) for wanted, have in zip(only.split("/"), self.name.split("/")))


class Answers:
    """The kept answers: a folder for each commit, with a file for each cell.

    Answers of a checkout with uncommitted changes do not count: their cells are asked again.
    """

    def __init__(self, commit: str):
        self._all, self._commit, self._trusted = ANSWERS, commit, not commit.endswith(CHANGED)

    def of(self, cell: Cell) -> dict[str, Any] | None:
        """The newest answer for a cell, from any commit; None where there is none."""
        paths = self._all.glob(f"*/{_file(cell)}")
        known = [{**json.loads(path.read_text()), "commit": path.parent.name} for path in paths]
        return max(known, key=lambda answer: answer["answered"], default=None)

    def has(self, cell: Cell) -> bool:
        """Whether the cell was answered at this commit."""
        return self._trusted and (self._all / self._commit / _file(cell)).exists()

    def keep(self, cell: Cell, answer: dict[str, Any]) -> None:
        path = self._all / self._commit / _file(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({**answer, "answered": datetime.now(UTC).isoformat()}) + "\n")
        new.replace(path)


def _file(cell: Cell) -> str:
    return f"{cell.name.replace('/', '_')}.json"


def commit() -> str:
    """The commit of the checkout, with CHANGED behind it if files other than the page and the answers are changed."""
    ours = [f":(exclude){path.relative_to(ROOT)}" for path in (PAGE, ANSWERS)]
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *ours)
    return _git("rev-parse", "--short", "HEAD") + (CHANGED if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()


class Asking:
    """Runs a guest for each cell. The end of the with block ends the guests that still run."""

    def __init__(self, answers: Answers):
        self._answers = answers
        self._living: set[subprocess.Popen[str]] = set()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended = True
        for process in list(self._living):
            process.terminate()

    def ask(self, cell: Cell) -> None:
        """Run the check in a guest, and keep its answer. A lost guest is an answer; a guest that we end is none."""
        if self._ended:
            return
        began = time.monotonic()
        process = subprocess.Popen(
            [
                VENV_PYTHON,
                ROOT / "lab.py",
                "--yes",
                "guest",
                "--kernel",
                cell.kernel,
                *MACHINES[cell.machine],
                "--seconds",
                str(cell.check.seconds),
                *cell.check.options,
                "--",
                str(VENV_PYTHON),
                "-m",
                f"guest.checks.{cell.check.module[0]}",
                *cell.check.module[1:],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        self._living.add(process)
        output, complaints = process.communicate()
        self._living.remove(process)
        if process.returncode != INTERRUPTED and not self._ended:
            answer = {**said(process.returncode, output, complaints), "seconds": round(time.monotonic() - began)}
            self._answers.keep(cell, answer)
            print(f"{cell.name}: {'ok' if answer['ok'] else 'NO'}, {answer['seconds']} s: {answer['said']}", flush=True)


def said(status: int, output: str, complaint: str) -> dict[str, Any]:
    """The answer of a check, from the exit status, the output and the stderr of its guest."""
    last = (output.strip().splitlines() or [""])[-1]
    if status == 0 and last.startswith("{"):
        told: dict[str, Any] = json.loads(last)
        return told
    complaints = complaint.strip().splitlines() or ["it said nothing"]
    return {"ok": False, "said": next((line for line in complaints if line.startswith("lab.py: ")), complaints[-1])}


def page(kernels: dict[str, str], answers: Answers) -> str:
    """The page in Markdown: its introduction, the table and what kernels lack. kernels: their versions, by choice."""
    columns = list(product(kernels, MACHINES))
    known = {(column, check): answers.of(Cell(*column, check)) for column in columns for check in CHECKS}
    commits = Counter(answer["commit"] for answer in known.values() if answer)
    said = ", ".join(f"{commit} ({cells} cells)" for commit, cells in commits.most_common())
    lines = [INTRODUCTION.format(date=date.today(), commits=said or "none yet")]
    if len(kernels) < len(KERNELS):
        lines.append(f"The newest kernel that the archive has is {list(kernels.values())[-1]}.\n")
    lines += [
        "| | " + " | ".join(f"{kernels[kernel]}, {HEADINGS[machine]}" for kernel, machine in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [
        f"| {check.title} | " + " | ".join(_shown(known[column, check]) for column in columns) + " |"
        for check in CHECKS
    ]
    return "\n".join([*lines, "", LACKS])


def _shown(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return "not run"
    said = answer["said"].replace("|", "\\|")
    return said if answer["ok"] else f"**no: {said}**"


def _kernels() -> dict[str, str]:
    """The version of each kernel of KERNELS, by its choice. The newest is left out where another choice is the same."""
    versions = {choice: kernel(choice).version for choice in KERNELS}
    return {
        choice: version
        for choice, version in versions.items()
        if choice != NEWEST or list(versions.values()).count(version) == 1
    }


def main(arguments: list[str]) -> int:
    """Ask the chosen cells that have no answer, then write the page. Returns 1 when a chosen cell's answer is no."""
    parser = argparse.ArgumentParser(
        prog="python3 -m guest.matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="K/M/C", help="again for more")
    parser.add_argument("--jobs", type=int, default=1, choices=(1, 2), help="guests at a time")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args(arguments)
    kernels, answers = _kernels(), Answers(commit())
    cells = [Cell(*column, check) for column in product(kernels, MACHINES) for check in CHECKS]
    chosen = [cell for cell in cells if not options.only or any(cell.is_chosen(only) for only in options.only)]
    if not chosen:
        parser.error(f"--only {' '.join(options.only)} chooses nothing: such as {cells[0].name}")
    open_cells = [] if options.page else [cell for cell in chosen if not answers.has(cell)]
    if any(cell.check.name == "library" for cell in open_cells):
        make(HERE, str(EMULATED.relative_to(HERE)))
    with ThreadPoolExecutor(options.jobs) as pool, Asking(answers) as asking:
        for done in [pool.submit(asking.ask, cell) for cell in open_cells]:
            done.result()
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(kernels, answers))
    print(f"{len(open_cells)} asked, {len(chosen) - len(open_cells)} known; {os.path.relpath(PAGE)}")
    return int(any((answers.of(cell) or {"ok": options.page})["ok"] is False for cell in chosen))


if __name__ == "__main__":
    sys.argv[:1] = ["-m", "guest.matrix"]  # bootstrap starts this module again in the lab's own environment
    bootstrap.ensure(["guest", "--yes", *sys.argv[2:]], __doc__)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell ignores SIGINT for background jobs; handle it there, too
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[2:]))
    except KeyboardInterrupt:
        print("interrupted: what was answered is kept", file=sys.stderr)
        sys.exit(INTERRUPTED)
