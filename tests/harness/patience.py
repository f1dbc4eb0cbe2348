"""How long tests wait. On a slow machine FASTSOCKET_TEST_PATIENCE=10 makes their waits and time-outs ten times as long,
and lets what only slowness can spoil be less exact."""

import os

PATIENCE = float(os.environ.get("FASTSOCKET_TEST_PATIENCE", "1"))
IS_SLOW = PATIENCE > 1


def patient(seconds: float) -> float:
    """So long as it takes here."""
    return seconds * PATIENCE


def give_the_lab_time() -> None:
    """Servers and load generators of the lab, too, may take longer, and there are fewer connections."""
    if IS_SLOW:
        from workloads.limits import PREFIX, Limits  # with all workloads, which load generators do not need

        usual = Limits()
        for name, value in {
            "GRACE_SECONDS": patient(usual.grace_seconds),
            "START_SECONDS": patient(usual.start_seconds),
            "CONNECTIONS_PER_CORE": max(10, usual.connections_per_core / PATIENCE),
        }.items():
            os.environ.setdefault(PREFIX + name, f"{value:.0f}")
