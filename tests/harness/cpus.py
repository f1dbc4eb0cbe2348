"""The CPUs that tests may use."""

import os

import pytest

ALL_CPUS = sorted(os.sched_getaffinity(0))
CPUS = ALL_CPUS[:2]  # that a server is pinned to
NEEDS_TWO_CPUS = pytest.mark.skipif(len(CPUS) < 2, reason="locality needs two CPUs")
