"""The circumstances of runs (machine, kernel, software, limits), and how those of several runs differ."""

from collections.abc import Iterator

from records.run import PASSING, Run


def circumstances(run: Run) -> dict[str, str]:
    """What a run recorded of machine, kernel, software and limits, by name, without what differs from run to run."""
    limits = ", ".join(f"{name} {value}" for name, value in run.options.limits.items()) or "as usual"
    told = {**run.fingerprint, **run.kernel_settings, **run.versions, **run.client, "limits": limits}
    return {name: value for name, value in told.items() if name not in PASSING}


def differences(was: Run, now: Run) -> Iterator[str]:
    """A sentence for each circumstance in which the two runs differ, and one sentence that names the circumstances that
    only one of the runs recorded."""
    before, after = circumstances(was), circumstances(now)
    for name in differing([was, now]):
        yield f"another machine or version: {name} was {before[name]}, and is {after[name]}"
    if unknown := [name for name in {**before, **after} if not (name in before and name in after)]:
        yield f"told by one of the two runs alone: {', '.join(unknown)}"


def differing(runs: list[Run]) -> list[str]:
    """The names of the circumstances of which the runs recorded different values."""
    told = [circumstances(run) for run in runs]
    names = dict.fromkeys(name for one in told for name in one)
    return [name for name in names if len({one[name] for one in told if name in one}) > 1]
