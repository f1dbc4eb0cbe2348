"""One block of a cluster's run, measured in a process of its own: python3 -m bench.block < Task > Block

The testbed lives as long as this process. The process gets SIGTERM when its parent ends, however the parent ends
(prctl(2)).
"""

import ctypes
import json
import os
import platform
import signal
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.experiment import usable_cpus
from bench.schedule import Slot
from bench.sweep import Tolerance, circumstances_here, prepared, tried
from records.run import PASSING, Circumstances, Record, Run
from records.trials import Trial
from setup.interruption import end_once
from workloads import limits

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Task(Record):
    """What a worker is asked to measure: a block's trials, and the run that they belong to."""

    run: Run
    slots: list[Slot]


class Block(Record):
    """What a worker returns. The field testbed of each trial is the name of this block's testbed."""

    name: str  # of the testbed
    testbed: Circumstances
    trials: list[Trial]
    left_out: dict[str, str]  # workload -> why the rest of its trials was not run


def name_of(testbed: Circumstances) -> str:
    """The name of a testbed: its host's name, and a digest of its fingerprint and of the CPUs that it measures on."""
    fixed = {name: value for name, value in testbed.fingerprint.items() if name not in PASSING}
    told = json.dumps([fixed, usable_cpus()], sort_keys=True)
    return f"{platform.node()}-{sha256(told.encode()).hexdigest()[:6]}"


def measured(task: Task) -> Block:
    """Measure the block that a task asks for. Raises TestbedError, BpfError, and WorkloadError if the run needs base's
    capacity, which cannot be measured."""
    testbed, tolerance = circumstances_here(task.run.options), Tolerance()
    name = name_of(testbed)
    run = task.run.model_copy(update=dict(task.run.testbeds.get(name, testbed)))
    with prepared(run) as (trials, run), TemporaryDirectory() as nothing:
        done = [
            trial.model_copy(update={"testbed": name})
            for trial in tried(trials, task.slots, run, Path(nothing), tolerance)
        ]
    found = Circumstances(**{field: getattr(run, field) for field in Circumstances.model_fields})
    return Block(name=name, testbed=found, trials=done, left_out=tolerance.left_out)


def main() -> int:
    end_once()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    task = Task.model_validate_json(sys.stdin.read())
    limits.write(task.run.options.limits, os.environ)
    try:
        print(measured(task).model_dump_json())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if not hasattr(error, "exit_status"):  # the lab's own errors have one; any other is a defect: show a traceback
            raise
        print(error, file=sys.stderr)
        return int(error.exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
