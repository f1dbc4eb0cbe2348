"""How long tests wait. On a slow machine FASTSOCKET_TEST_PATIENCE=10 makes their waits and time-outs ten times as long,
and lets what only slowness can spoil be less exact."""

import os

PATIENCE = float(os.environ.get("FASTSOCKET_TEST_PATIENCE", "1"))
IS_SLOW = PATIENCE > 1


def patient(seconds: float) -> float:
    """So long as it takes here."""
    return seconds * PATIENCE
