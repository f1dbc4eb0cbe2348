"""Where CPU time went, from /proc/stat."""

import os

import pytest

from bench.cpu import busy_seconds, difference, steal_share
from bench.trial import _metrics, _untold
from fastsocket.measure.machine import snapshot
from fastsocket.steering.cpus import cpu_mask
from records.trials import CpuUse
from workloads.load import Load


def test_a_busy_loop_shows_as_user_time_on_its_cpu():
    cpu = min(os.sched_getaffinity(0))
    before_affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        before = snapshot()
        spent = os.times().user
        while os.times().user - spent < 0.3:
            pass
        (use,) = difference(before, snapshot(), [cpu])
    finally:
        os.sched_setaffinity(0, before_affinity)
    assert use.cpu == cpu
    assert use.user >= 0.25
    assert busy_seconds([use]) >= 0.25
    assert 0 <= steal_share([use]) < 1


def test_cpu_masks_have_the_form_of_sysfs():
    assert cpu_mask([0]) == "00000001"
    assert cpu_mask([0, 1, 5]) == "00000023"
    assert cpu_mask([32]) == "00000001,00000000"
    assert cpu_mask([0, 63, 64]) == "00000001,80000000,00000001"


@pytest.mark.parametrize(
    "requests, own_seconds, why_not",
    [(1000, 0.25, None), (1000, 0.5, "exceeds"), (1000, 2.0, "exceeds"), (0, 0.25, "nothing was served")],
)
def test_a_request_costs_more_than_nothing_or_an_unknown_time(requests, own_seconds, why_not):
    """Where /proc/stat counts ticks, half a second of the load generator may be more than all that it saw."""
    use = [CpuUse(cpu=0, user=0.3, system=0.2, softirq=0, irq=0, idle=0.5, iowait=0, steal=0)]
    load = Load(requests=requests, seconds=1.0, latency_ms={}, errors={}, cpu_seconds=own_seconds)
    metrics, untold = _metrics("cps", load, use), _untold(load, use)
    assert metrics.get("cpu_us_per_request") == (pytest.approx(250) if why_not is None else None)
    assert ("cpu_us_per_request" in untold) == (why_not is not None)
    assert why_not is None or why_not in untold["cpu_us_per_request"]
