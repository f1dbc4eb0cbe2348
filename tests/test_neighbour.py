"""The process that keeps one of the server's CPUs busy."""

import os
from pathlib import Path

import pytest

from bench.neighbour import neighbour
from tests.harness.cpus import ALL_CPUS
from tests.harness.patience import patient
from tests.harness.waiting import wait_until


def cpu_ticks(pid: int) -> int:
    """utime of proc(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.parametrize("nice", [0, 19])
def test_it_keeps_its_cpu_busy_at_its_priority(nice):
    with neighbour(ALL_CPUS[-1], nice) as pid:
        wait_until(lambda: cpu_ticks(pid) > 5, "it runs", patient(20))
        assert os.sched_getaffinity(pid) == {ALL_CPUS[-1]}
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice)
    assert not Path(f"/proc/{pid}").exists()


def test_it_ends_with_a_lab_that_is_killed(tmp_path):
    lab = os.fork()
    if lab == 0:
        with neighbour(ALL_CPUS[-1], nice=19) as pid:
            (tmp_path / "pid").write_text(str(pid))
            os.kill(os.getpid(), 9)
    os.waitpid(lab, 0)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), "the neighbour has ended", patient(20))
