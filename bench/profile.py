"""A CPU profile of the whole machine during a trial. perf takes the samples and folds them.

The lab's machines may lack hardware counters, so perf samples by the clock (perf-record(1), event cpu-clock). Call
chains cover the kernel alone: the servers are built without frame pointers, so chains through them would be wrong.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastsocket.processes import family
from records.profile import FREQUENCY, IDLE, NO_SYMBOL, OTHER, SERVER, Stack, write_stacks
from workloads.process import WorkloadError, running

_RECORD = ["perf", "record", "--quiet", "--event=cpu-clock", "--all-cpus", "-g", "--kernel-callchains", "--delay=-1"]
_REPORT = ["perf", "report", "--stdio", "--no-children", "--show-nr-samples", "--sort=comm,dso,sym"]
_FOLDED = ["--call-graph=folded,0,caller,count", "--field-separator=\t"]
_ROW = re.compile(r"\s*[\d.]+%\s*\t")
_ACKNOWLEDGED = b"ack\n"


@contextmanager
def recording(perf_data: Path, frequency: int = FREQUENCY) -> Iterator[None]:
    """Sample all CPUs from the beginning of the context to its end. Raises WorkloadError if perf does not record."""
    control, commands = os.pipe()
    answers, answer = os.pipe()
    log = perf_data.with_suffix(".log")
    command = [*_RECORD, f"--freq={frequency}", f"--output={perf_data}", f"--control=fd:{control},{answer}"]
    try:
        with (
            open(log, "wb") as said,
            running(command, pass_fds=(control, answer), stdout=said, stderr=said) as perf,
        ):
            os.close(control)
            os.close(answer)
            _tell(commands, answers, b"enable\n", log)
            yield
            _tell(commands, answers, b"disable\n", log)
            os.write(commands, b"stop\n")
            perf.wait()
    finally:
        os.close(commands)
        os.close(answers)


def _tell(commands: int, answers: int, command: bytes, log: Path) -> None:
    os.write(commands, command)
    if not os.read(answers, 64).startswith(_ACKNOWLEDGED):
        raise WorkloadError(f"perf does not record: {log.read_text(errors='replace').strip() or 'it ended'}")


def commands_of(pid: int) -> set[str]:
    """The names that the kernel has for a server's threads (comm in proc(5)). pid: the server's first process."""
    return {
        task.read_text().rstrip("\n")
        for member in family(pid)
        for task in Path("/proc", f"{member}", "task").glob("*/comm")
    }


def fold(perf_data: Path, server_commands: Iterable[str] = ()) -> list[Stack]:
    """The stacks of a perf.data file, the most frequent first. perf itself merges them and names their functions.

    server_commands: the names of the server's threads. Raises WorkloadError if perf finds no samples in the file.
    """
    servers = set(server_commands)
    folded: Counter[tuple[str, str, str, str]] = Counter()
    report = [*_REPORT, *_FOLDED, f"--input={perf_data}"]
    with subprocess.Popen(report, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as perf:
        assert perf.stdout and perf.stderr  # they are pipes
        for command, binary, frames, samples in _rows(perf.stdout):
            folded[_role(command, frames, servers), command, binary, frames] += samples
        complaint = perf.stderr.read().strip()
    if perf.returncode or not folded:
        raise WorkloadError(f"{perf_data}: perf finds no samples in it: {complaint or 'it is empty'}")
    return [Stack(samples, *where) for where, samples in folded.most_common()]


def _role(command: str, frames: str, servers: set[str]) -> str:
    if command in servers:
        return SERVER
    return IDLE if command == "swapper" and "softirq" not in frames else OTHER


def _rows(lines: Iterable[str]) -> Iterator[tuple[str, str, str, int]]:
    """Command, object, frames and samples of each stack that perf report prints. Samples without a call chain make a
    stack of their function alone."""
    row, left = ("", "", ""), 0
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        if _ROW.match(line):
            if left:
                yield *row, left
            _, samples, command, binary, symbol = (part.strip() for part in line.split("\t", 4))
            row, left = (command, binary, _named(symbol[4:] or symbol)), int(samples)
        else:
            count, chain = line.rstrip("\n").split(" ", 1)
            frames = chain.replace(";", ",").split("\t")
            left -= int(count)
            yield *row[:2], ";".join([*frames[:-1], row[2]]), int(count)
    if left:
        yield *row, left


def _named(symbol: str) -> str:
    return NO_SYMBOL if symbol.startswith("0x") else symbol.replace(";", ",")


@contextmanager
def profiled(path: Path, server_pid: int, ports: range, scratch: Path) -> Iterator[None]:
    """Profile the machine until the context ends, and write the stacks to path. The scratch directory gets perf's own
    files."""
    perf_data, commands = scratch / "perf.data", commands_of(server_pid)
    with recording(perf_data):
        yield
    write_stacks(path, fold(perf_data, commands))
