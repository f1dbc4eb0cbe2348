"""How local are a server's connections, with and without the library? Measured in a short sweep over all CPUs."""

import os
import tempfile
from pathlib import Path
from statistics import fmean

from guest.checks import CPUS, LAB, No, answer, output
from records.trials import Trial, read_trials
from tests.harness.locality import MOSTLY, accepted, helped_percent
from workloads.limits import PREFIX

LOCAL_ENOUGH = 99  # percent, counting connections that neighbours took over as local
# So few connections that CPUs go idle between requests. At saturation a CPU that has work must wait for its turn in the
# emulator, and a neighbour then serves that CPU's clients.
CONNECTIONS_PER_CORE = "1"
REHEARSED_REQUESTS = "200"  # for Redis: in an emulator all instances together serve about a thousand a second
KINDS = {"passive_local_percent": "passive", "active_local_percent": "active"}


def check(workload: str) -> str:
    """Local percent without → with the library, as in "passive 33.0 → 100.0". Raises No where too few are local.

    Where the kernel tells nothing about locality, the library's own count is used.
    """
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
    """The percentage of accepted connections that came from the worker's own CPU, as the library counted them."""
    counted = accepted(trials)
    if not any(counted.values()):
        raise No("neither the kernel nor the library tells")
    return 100 * counted["local"] / sum(counted.values())


if __name__ == "__main__":
    answer(check)
