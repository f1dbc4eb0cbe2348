"""How local a server's connections are, with the library and without, in a short sweep over all CPUs."""

import os
import tempfile
from pathlib import Path
from statistics import fmean

from guest.checks import CPUS, LAB, No, answer, output
from records.trials import Trial, read_trials
from tests.harness.locality import MOSTLY, accepted, helped_percent
from workloads.limits import PREFIX

LOCAL_ENOUGH = 99  # with the connections that neighbours took over
# So few that CPUs go idle between requests. At saturation an emulator lets a CPU that has work wait for its turn, and a
# neighbour then serves that CPU's clients.
CONNECTIONS_PER_CORE = "1"
REHEARSED_REQUESTS = "200"  # of Redis: an emulator serves about a thousand a second, of all instances together
KINDS = {"passive_local_percent": "passive", "active_local_percent": "active"}


def check(workload: str) -> str:
    """As in "passive 33.0 → 100.0"; where the kernel tells nothing of locality, what the library counted."""
    os.environ[f"{PREFIX}CONNECTIONS_PER_CORE"] = CONNECTIONS_PER_CORE
    os.environ[f"{PREFIX}REHEARSED_REQUESTS"] = REHEARSED_REQUESTS
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        output(
            [
                *LAB,
                "sweep",
                "--workload",
                workload,
                "--variant",
                "base,fastsocket",
                "--cores",
                str(len(CPUS)),
                "--blocks",
                "1",
                "--seconds",
                "2",
                "--no-report",
                "--out",
                str(run),
            ]
        )
        trials = read_trials(run)
    said = {
        kind: (_mean(trials, "base", metric), _mean(trials, "fastsocket", metric))
        for metric, kind in KINDS.items()
        if all(metric in trial.metrics for trial in trials)
    }
    shown = ", ".join(f"{kind} {base:.1f} → {ours:.1f}" for kind, (base, ours) in said.items())
    local = min(ours for _, ours in said.values()) if said else _by_the_library(trials)
    shown = shown or f"not visible to this kernel; {local:.1f} by the library's count"
    if local >= LOCAL_ENOUGH:
        return shown
    helped = helped_percent(trials)
    shown = f"{shown}; {helped:.1f} % were taken over by neighbours, {_how_late(trials)}"
    if local < MOSTLY or local + helped < LOCAL_ENOUGH:
        raise No(shown)
    return shown


def _mean(trials: list[Trial], variant: str, metric: str) -> float:
    return fmean(trial.metrics[metric] for trial in trials if trial.variant == variant and not trial.control)


def _how_late(trials: list[Trial]) -> str:
    waited = max(trial.metrics.get("latency_p50_ms", 0) for trial in trials if trial.library)
    return f"and an answer took {waited:.0f} ms at the median of a trial"


def _by_the_library(trials: list[Trial]) -> float:
    """The share of what it accepted that came from the worker's own CPU."""
    counted = accepted(trials)
    if not any(counted.values()):
        raise No("neither the kernel nor the library tells")
    return 100 * counted["local"] / sum(counted.values())


if __name__ == "__main__":
    answer(check)
