"""Runs as a sweep would leave them, for what reads them, and trials whose effects are known."""

import math

import numpy as np

from bench.experiment import figure_specs
from bench.schedule import schedule
from records.run import Options, Placement, Run
from records.trials import CpuUse, Trial

BLOCKS = 6  # enough for intervals
TRUTH = {"base": 1.0, "control": 1.0, "latest": 1.0, "fastsocket": 1.2}


def a_run(blocks=BLOCKS, workloads=("nginx",), cores=(1, 2), shared=True, **changes) -> Run:
    options = Options(
        experiment="scalability",
        workloads=list(workloads),
        variants=["base", "latest", "fastsocket"],
        cores=list(cores),
        blocks=blocks,
        seconds=2,
        seed=7,
        figures=figure_specs("scalability", list(workloads)),
    )
    placements = [
        Placement(cores=count, server_cpus=list(range(count)), load_cpus=[0, 1] if shared else [6, 7])
        for count in cores
    ]
    made = Run(
        options=options,
        started="2024-05-01T12:00:00+02:00",
        fingerprint={"kernel": "6.18 <test> & more"},
        versions={"nginx": "1.22.1"},
        placements=placements,
        unavailable={},
        planned_trials=len(schedule(options)),
        complete=True,
        wall_seconds=400.0,
    )
    return made.model_copy(update=changes)


def trials_of(run: Run, cps=None, **changes) -> list[Trial]:
    """A trial per slot; cps(slot's index, arm, cores) or the true effect with 2 % noise."""
    noise = np.random.default_rng(3)

    def rate(index, arm, cores):
        return 20_000 * cores * TRUTH[arm] * math.exp(noise.normal(0, 0.02))

    return [
        a_trial(slot, (cps or rate)(slot.index, "control" if slot.control else slot.variant, slot.cores), changes)
        for slot in schedule(run.options)
    ]


def a_trial(slot, cps: float, changes: dict) -> Trial:
    use = {"system": 1.0, "softirq": 0.4, "irq": 0.0, "idle": 0.1, "iowait": 0.0, "steal": 0.0}
    metrics = {
        "cps": cps,
        "latency_p50_ms": 1.5,
        "latency_p99_ms": 20 - slot.index % 5,
        "errors": 0.0,
        "passive_local_percent": 99.9 if slot.variant == "fastsocket" else 49 + slot.index % 3,
        "cpu_us_per_request": 80 + slot.index % 9,
    }
    made = Trial(
        **vars(slot),
        started=1.7e9 + slot.index,
        seconds=2.0,
        metrics=metrics,
        unavailable={},
        latency_ms={"50": 1.5},
        load_errors={},
        load_cpu_seconds=0.7,
        library=None,
        spoilt=[],
        cpu=[CpuUse(cpu=cpu, user=0.5, **use) for cpu in range(slot.cores)],
    )
    return made.model_copy(update=changes)
