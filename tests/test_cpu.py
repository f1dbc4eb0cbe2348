"""Where CPU time went, from /proc/stat."""

import os

from bench.cpu import busy_seconds, difference, snapshot, steal_share
from fastsocket.steering.cpus import cpu_mask


def test_a_busy_loop_shows_as_user_time_on_its_cpu():
    cpu = min(os.sched_getaffinity(0))
    before_affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        before = snapshot()
        spent = os.times().user
        while os.times().user - spent < 0.3:
            pass
        use, = difference(before, snapshot(), [cpu])
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
