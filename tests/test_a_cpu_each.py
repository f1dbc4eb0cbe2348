"""Workers that wait for several listeners get a CPU each, by whichever of the listeners they get it."""

import os
import subprocess
import sys

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import APPS
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]

ORDER = (0, 1, 0)  # of the workers' steps: the second one gets its CPU by the second listener


def test_no_two_workers_get_the_same_cpu_by_different_listeners():
    command = ["taskset", "--cpu-list", ",".join(map(str, CPUS)), sys.executable, APPS / "two_listeners.py"]
    environment = {**os.environ, "LD_PRELOAD": str(LIBRARY)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as server:
        pids = list(map(int, server.stdout.readline().split()))
        for worker in ORDER:
            print(worker, file=server.stdin)
            assert server.stdout.readline() == "waited\n"
        wait_until(lambda: all(len(os.sched_getaffinity(pid)) == 1 for pid in pids), "both are pinned")
        assert {cpu for pid in pids for cpu in os.sched_getaffinity(pid)} == set(CPUS)
        server.stdin.close()
