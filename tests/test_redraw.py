"""A run directory is drawn and reported where nothing can be measured, and on CPUs whose numbers have gaps."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.figures import draw_figures
from analysis.results import result
from fastsocket.processes import children
from fastsocket.steering.ports import core_of_port
from records.run import FigureSpec, Options, Placement, Run, read_run
from records.trials import LibraryCounters, Trial
from records.walk import ACTIVE_STEPS, PASSIVE_STEPS, Step, walk_path, write_walk
from tests.harness.commands import LAB
from tests.harness.waiting import ending, wait_until

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference"
EXPERIMENTS = ROOT / "results" / "experiments"
# Imports of what measures fail, as on a machine that has none of it.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("mininet", "pyroute2", "bench", "workloads", "topologies"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
from pathlib import Path
from analysis.report import write_all
write_all(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "run",
    [REFERENCE / "walk", REFERENCE / "profile", REFERENCE / "scalability", EXPERIMENTS / "interrupts"],
    ids=lambda run: run.name,
)
def test_a_report_needs_nothing_of_what_measures(tmp_path, run):
    directory = shutil.copytree(run, tmp_path / run.name, ignore=shutil.ignore_patterns("figures"))
    done = subprocess.run([sys.executable, "-c", WITHOUT, directory], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (directory / "report.html").exists()
    specs = read_run(directory).options.figures
    assert specs and all((directory / "figures" / f"{spec.id}.svg").exists() for spec in specs)


def test_processes_that_draw_end_with_one_that_is_killed(tmp_path):
    run = shutil.copytree(REFERENCE / "profile", tmp_path / "run")
    with subprocess.Popen([*LAB, "figures", run], stdout=subprocess.DEVNULL) as drawing:
        wait_until(lambda: children(drawing.pid), "a process draws")
        with ending(children(drawing.pid)):
            drawing.kill()


def walk_of(cpu: int, port: int, number: int) -> list[Step]:
    """A connection that stays on one CPU."""
    return [
        Step(number, step, cpu, float(step), 50_000 + number if step in PASSIVE_STEPS else port)
        for step in (*PASSIVE_STEPS, *ACTIVE_STEPS)
    ]


@pytest.mark.parametrize("server_cpus, machine_cpus", [([4, 5, 6, 7], 8), ([1, 3], 4), ([0, 5], 6)])
def test_walks_on_cpus_with_gaps_are_drawn_on_those_cpus(tmp_path, server_cpus, machine_cpus):
    kinds = {
        "listen": "listen-table",
        "queues": "accept-queues",
        "active": "active-connections",
        "deliver": "flow-deliver",
    }
    options = Options(
        experiment="walk",
        workloads=["haproxy"],
        variants=["fastsocket"],
        cores=[len(server_cpus)],
        blocks=1,
        seconds=1,
        seed=1,
        observes="walk",
        figures=[FigureSpec(id=name, kind=kind, title=name) for name, kind in kinds.items()],
    )
    run = Run(
        options=options,
        started="2026-11-25T12:00:00+00:00",
        fingerprint={},
        machine_cpus=machine_cpus,
        versions={},
        placements=[Placement(cores=len(server_cpus), server_cpus=server_cpus, load_cpus=[0])],
        unavailable={},
        planned_trials=1,
    )
    ports = [
        next(port for port in range(32_768 + 100 * number, 65_536) if core_of_port(port, machine_cpus) == cpu)
        for number, cpu in enumerate(server_cpus)
    ]
    steps = [step for number, where in enumerate(zip(server_cpus, ports)) for step in walk_of(*where, number)]
    write_walk(walk_path(tmp_path, 0), steps)
    draw_figures(result(tmp_path, run, [a_trial(server_cpus)]))
    assert "core that connects: fastsocket 100.0 %" in texts(tmp_path, "deliver")
    assert re.findall(r"core (\d+)", texts(tmp_path, "active")) == [str(cpu) for cpu in server_cpus]
    assert texts(tmp_path, "active").count("100 % (") == len(ACTIVE_STEPS)
    assert [texts(tmp_path, "queues").count(f"{part} %") for part in ("20.0", "80.0")] == [len(server_cpus)] * 2


def a_trial(server_cpus: list[int]) -> Trial:
    """On each CPU four of five connections come from the local queue."""
    accepted = {"adopted": 2, "accepted_local": 4, "accepted_global": 1, "accepted_neighbour": 0}
    return Trial(
        index=0,
        block=0,
        workload="haproxy",
        variant="fastsocket",
        control=False,
        cores=len(server_cpus),
        started=1.0,
        seconds=1.0,
        metrics={"cps": 100.0},
        unavailable={},
        latency_ms={},
        load_errors={},
        cpu=[],
        load_cpu_seconds=0.1,
        library=[LibraryCounters(cpu=cpu, **accepted) for cpu in server_cpus],
        spoilt=[],
    )


def texts(directory: Path, name: str) -> str:
    """The comments in which matplotlib's SVG repeats each line of text."""
    return " ".join(re.findall(r"<!-- (.*?) -->", (directory / "figures" / f"{name}.svg").read_text()))
