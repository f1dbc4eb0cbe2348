"""What it costs to turn a perf.data file into table, flame graph and speedscope file, beside perf report --stdio.

python3 -m tests.profile_cost --record 786000     samples of this machine, as it is, taken now
python3 -m tests.profile_cost perf.data           a file that is here already

The two take turns, five times each. Memory is the larger of perf's and ours, which run one after the other.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory

from analysis.profile.flamegraph import flame_graph
from analysis.profile.flat import flat
from analysis.profile.speedscope import speedscope
from bench.experiment import usable_cpus
from bench.profile import fold, recording

TIMES = 5
RECORDED_AT = 25_000  # Hz


def convert(perf_data: Path, out: Path) -> int:
    """Write flat.csv, flame.svg and speedscope.json into out. Returns the number of samples."""
    stacks = fold(perf_data)
    flat(stacks, only_server=False).to_csv(out / "flat.csv", index=False)
    (out / "flame.svg").write_text(flame_graph(stacks, perf_data.name))
    (out / "speedscope.json").write_text(speedscope({perf_data.name: stacks}))
    return sum(stack.samples for stack in stacks)


def _record(perf_data: Path, samples: int) -> None:
    """With both CPUs busy in the kernel, since idle ones are not sampled."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "import os\nwhile True: os.stat('/proc/self/status')"])
        for _ in usable_cpus()
    ]
    try:
        with recording(perf_data, RECORDED_AT):
            time.sleep(samples / RECORDED_AT / len(busy))
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _timed(command: list[str]) -> tuple[float, str]:
    began = time.monotonic()
    said = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout
    return time.monotonic() - began, said


def _compare(perf_data: Path, out: Path) -> None:
    ours, theirs, said = [], [], ""
    for _ in range(TIMES):
        seconds, said = _timed([sys.executable, "-m", "tests.profile_cost", "--convert", f"{out}", f"{perf_data}"])
        ours.append(seconds)
        theirs.append(_timed(["perf", "report", "--stdio", "--input", f"{perf_data}"])[0])
    ratios = sorted(mine / other for mine, other in zip(ours, theirs))
    print(
        f"{said.strip()}\nseconds: ours {' '.join(f'{one:.2f}' for one in ours)}; "
        f"perf report {' '.join(f'{one:.2f}' for one in theirs)}\n"
        f"ours / perf report: {geometric_mean(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} in {TIMES} pairs)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("perf_data", nargs="?", type=Path)
    parser.add_argument("--record", type=int, metavar="SAMPLES")
    parser.add_argument("--convert", type=Path, metavar="DIR", help="only write the three files")
    options = parser.parse_args()
    if options.convert:
        samples = convert(options.perf_data, options.convert)
        largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(f"{samples:,} samples, {largest / 1024:.0f} MB")
        return
    with TemporaryDirectory() as directory:
        perf_data = options.perf_data or Path(directory, "perf.data")
        if options.record:
            _record(perf_data, options.record)
        _compare(perf_data, Path(directory))


if __name__ == "__main__":
    main()
