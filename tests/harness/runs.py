"""Runs as a sweep would leave them, for what reads them."""

from bench.experiment import figure_specs
from bench.schedule import schedule
from records.run import Options, Placement, Run

BLOCKS = 6  # enough for intervals


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
