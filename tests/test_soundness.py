"""What goes wrong in a trial is seen: nothing of it goes silently into a mean."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from bench.schedule import Slot
from bench.soundness import ENDED, OTHERS_TOLERATED, STOPPED, is_busy, require_time_went_on, state_of, unharmed
from bench.sweep import UsageError, bench, new_run, resumed_run
from fastsocket.build import LIBRARY
from fastsocket.processes import family
from records.run import Placement, write_run
from records.trials import OTHERS, TRIALS, CpuUse, append_trial, read_trials
from tests.harness.commands import assert_one_line, lab
from tests.harness.cpus import ALL_CPUS
from tests.harness.runs import a_run, trials_of
from tests.harness.waiting import wait_until
from workloads.load import Load
from workloads.process import WorkloadError, running
from workloads.variants import nameable
from workloads.wrk import _require_size

CPU = CpuUse(cpu=0, user=1, system=0, softirq=0, irq=0, idle=0, iowait=0, steal=0)


def a_load(seconds: float) -> Load:
    return Load(requests=10, seconds=seconds, latency_ms={}, errors={}, cpu_seconds=0.1)


@pytest.mark.parametrize("number, what", [(signal.SIGKILL, "ended"), (signal.SIGSTOP, "was stopped")])
def test_a_server_that_loses_or_stops_a_worker_has_no_result(number, what):
    with running(["sh", "-c", "sleep 60 & sleep 60; wait"]) as server:
        wait_until(lambda: len(family(server.pid)) == 3, "its workers run")
        worker = family(server.pid)[1]

        def harm():
            with unharmed([server.pid]):
                os.kill(worker, number)
                wait_until(lambda: state_of(worker) in STOPPED + ENDED, "it is harmed")

        with pytest.raises(WorkloadError, match=f"process {worker} of the server {what} during the load"):
            harm()
    with unharmed([os.getpid()]):
        pass


def test_what_a_killed_master_leaves_ends_with_it():
    with running(["sh", "-c", "sleep 60 & sleep 60"]) as server:
        wait_until(lambda: len(family(server.pid)) == 3, "its workers run")
        _, *workers = family(server.pid)
        server.kill()
        server.wait()
    assert len(workers) == 2
    wait_until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), "its workers are gone")


def test_a_lab_or_a_generator_that_was_suspended_is_noticed():
    require_time_went_on(1, a_load(1.01), 1.3)
    with pytest.raises(WorkloadError, match=r"the lab was suspended: 11\.3 s passed around 1\.2 s of load"):
        require_time_went_on(1, a_load(1.19), 11.3)
    with pytest.raises(WorkloadError, match=r"the load took 12\.0 s instead of 1 s"):
        require_time_went_on(1, a_load(12), 12.1)


def test_a_busy_machine_is_noticed():
    assert not is_busy({OTHERS: 0.9 * OTHERS_TOLERATED * 2}, [CPU, CPU], 1.0)
    assert is_busy({OTHERS: 1.1 * OTHERS_TOLERATED * 2}, [CPU, CPU], 1.0)


def test_answers_of_another_size_have_no_result():
    none = {"status": 0}
    _require_size(1000, 199_500, 200, none)
    _require_size(0, 0, 200, none)
    _require_size(1000, 150_000, 200, {"status": 500})  # they are counted as errors
    with pytest.raises(WorkloadError, match="answers had 150 bytes instead of 200"):
        _require_size(1000, 150_000, 200, none)


def test_a_full_disk_tears_no_line(tmp_path):
    first, second, *_ = trials_of(a_run())
    append_trial(tmp_path, first)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    whole = (tmp_path / TRIALS).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 20, limit[1]))
    try:
        with pytest.raises(OSError, match=r"No space left on device.*trials\.jsonl"):
            append_trial(tmp_path, second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert (tmp_path / TRIALS).stat().st_size == whole
    append_trial(tmp_path, second)
    assert read_trials(tmp_path) == [first, second]


def test_a_path_with_a_space_can_be_preloaded(tmp_path):
    (tmp_path / "a b").mkdir()
    shutil.copy(LIBRARY, tmp_path / "a b")
    said = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/maps').read())"],
        env={**os.environ, "LD_PRELOAD": str(nameable(tmp_path / "a b" / LIBRARY.name))},
        capture_output=True,
        text=True,
    )
    assert f"a b/{LIBRARY.name}" in said.stdout and "cannot be preloaded" not in said.stderr
    assert nameable(LIBRARY) == LIBRARY or " " in str(LIBRARY)


# Options


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--precision", "0%"], "is no percentage"),
        (["--precision", "two"], "is no percentage"),
        (["paper", "--precision", "2%"], "one experiment"),
        (["production", "--precision", "2%"], "none that is a day"),
    ],
)
def test_a_precision_that_means_nothing_is_refused(arguments, named):
    assert_one_line(lab("sweep", *arguments), 2, named)


@pytest.mark.slow
@pytest.mark.privileged
def test_when_the_time_is_up_no_block_is_added(tmp_path):
    short = ["--workload", "nginx", "--variant", "base,off", "--cores", "1", "--blocks", "1", "--seconds", "1"]
    done = lab("sweep", *short, "--precision", "1%", "--time", "0", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the time is up: no interval after 1 blocks; ± 1.0% was asked for\n")


@pytest.mark.parametrize("option", ["--workload", "--variant", "--cores"])
def test_an_empty_option_is_refused(option):
    assert_one_line(lab("sweep", "--dry-run", option, ""), 2, f"{option} is empty")


def test_a_run_goes_on_as_it_was_or_with_more_blocks(tmp_path):
    run = a_run(blocks=6)
    write_run(tmp_path, run)
    options = run.options

    def resumed(said, **wanted):
        return resumed_run(tmp_path, options.model_copy(update=wanted), frozenset(said))

    assert resumed([], workloads=["redis"], blocks=3).options == options  # the defaults of another call
    assert resumed(["workloads", "blocks"]).options == options
    more = resumed(["blocks"], blocks=8)
    assert more.options.blocks == 8 and more.planned_trials == run.planned_trials // 6 * 8 and not more.complete
    for said, wanted, named in (
        ("workloads", {"workloads": ["redis"]}, "workloads nginx, not redis"),
        ("blocks", {"blocks": 5}, "blocks 6, not 5"),
        ("seconds", {"seconds": 9}, "seconds 2, not 9"),
        ("cores", {"cores": [1]}, "cores 1, 2, not 1"),
    ):
        with pytest.raises(UsageError, match=named):
            resumed([said], **wanted)
    with pytest.raises(UsageError, match="experiment scalability, not cost"):
        resumed([], experiment="cost")


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        new_run(tmp_path, a_run().options)
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


# A real server


@contextmanager
def killing_a_worker(pid, ports, scratch):
    os.kill(family(pid)[-1], signal.SIGKILL)
    yield


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.timeout(60)
def test_a_worker_that_is_killed_costs_its_trial_and_the_next_one_is_sound():
    placement = Placement(cores=len(ALL_CPUS), server_cpus=ALL_CPUS, load_cpus=ALL_CPUS)
    slot = Slot(0, 0, "nginx", "base", False, len(ALL_CPUS))
    with bench(["nginx"], len(ALL_CPUS), "rps") as (trials, _):
        with pytest.raises(WorkloadError, match="of the server ended during the load"):
            trials.run(slot, placement, seconds=1, observe=killing_a_worker)
        began = time.monotonic()
        assert trials.run(slot, placement, seconds=1).metrics["cps"] > 0
        assert time.monotonic() - began < 30
