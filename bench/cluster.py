"""A run on many testbeds: whole ABBA blocks go to the workers of a Dask cluster. Each worker measures one at a time.

One worker measures a block from beginning to end, and the block is recorded whole or not at all. If a worker dies or
fails, nothing of its block is kept. The block is then measured once more, and the run records the lost attempt.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bench import worker
from bench.block import Block, Task
from bench.engine import Client, FuturesCancelledError, KilledWorker, wait
from bench.experiment import UsageError
from bench.schedule import Slot
from bench.sweep import finish, remaining, require_one
from bench.worker import ClusterError
from bench.workers import workers_here, workers_there
from records.run import LostBlock, Options, Run, write_run
from records.trials import Trial, append_trial, read_trials
from setup.fingerprint import code
from workloads.process import WorkloadError

ATTEMPTS = 3  # how often a block may be lost before the run ends
LOOK_SECONDS = 1  # between two looks for workers that came or went
RESULT_SECONDS = 30  # how long the result of a finished block may take to arrive
DIED = "its worker died"

Say = Callable[[str], None]  # prints a line


class Cluster:
    """The workers of a scheduler. measure: the function that they are asked to call."""

    def __init__(self, client: Client, say: Say, measure: Callable[[str], str] = worker.measure):
        self.client = client
        self.say = say
        self.ask = measure
        self._code = code()
        self._refused: set[str] = set()  # addresses of workers that get no blocks

    def workers(self) -> dict[str, Any]:
        """Worker's address -> what that worker said of itself; None if lab.py worker did not start it.

        Refused workers are left out. Raises ClusterError if the scheduler is gone.
        """
        there: dict[str, Any] = self.client.scheduler_info().get("workers", {})
        if self.client.status != "running":  # the client lost the scheduler: it told what it remembers of it
            raise ClusterError("the scheduler is gone: start it and its workers, and --resume goes on")
        return {address: one.get("testbed") for address, one in there.items() if address not in self._refused}

    def admit(self, options: Options) -> dict[str, Any]:
        """Refuse, with a line for each, the workers that cannot measure a run of these options. Returns the others."""
        for address, told in self.workers().items():
            if why := self._why_not(told, max(options.cores)):
                self.refuse(address, f"{told['host'] if told else 'the worker'} at {address} is refused: {why}")
        return self.workers()

    def refuse(self, address: str, why: str) -> None:
        self._refused.add(address)
        self.say(why)

    def _why_not(self, told: Any, cores: int) -> str:
        if not told:
            return "it was not started by lab.py worker"
        if told["code"] != self._code:
            return f"its checkout is {told['code']}, and this one {self._code}"
        if told["cpus"] < cores:
            return f"of its CPUs it may use {told['cpus']}, and the sweep asks for {cores}"
        return ""

    def measure(self, directory: Path, run: Run, began: float, done: Callable[[Trial], None]) -> None:
        """Run the remaining trials on the workers. The parameters are those of bench.sweep.measure().

        Raises ClusterError if no worker is left or if a block is lost ATTEMPTS times, UsageError for a run that one
        machine measured, and WorkloadError if no trial of the whole run could be measured.
        """
        if read_trials(directory) and not run.testbeds:
            raise UsageError(f"{directory} was measured by one machine: go on without --cluster")
        course = Course(self, directory, run, done)
        try:
            course.run_through()
        finally:
            course.end()
            finish(directory, course.run, course.left_out, began)
        require_one(directory)


class Asked(NamedTuple):
    """A block that a worker is measuring: its result to come, its trials, and the worker's host."""

    future: Any
    slots: list[Slot]
    host: str


class Course:
    """The state of a run: the blocks that wait, and the blocks that are being measured."""

    def __init__(self, cluster: Cluster, directory: Path, run: Run, done: Callable[[Trial], None]):
        self.run = run
        self.left_out: dict[str, str] = {}
        self._cluster = cluster
        self._directory = directory
        self._done = done
        slots = groupby(remaining(directory, run), key=lambda slot: slot.block)
        self._waiting = deque(list(block) for _, block in slots)
        self._measured: dict[str, Asked] = {}  # by the worker's address
        self._lost: Counter[int] = Counter()  # block -> attempts that were lost

    def run_through(self) -> None:
        while self._waiting or self._measured:
            for address, told in self._cluster.admit(self.run.options).items():
                if address not in self._measured:
                    self._give(address, told["host"])
            if self._waiting and not self._measured:
                raise ClusterError(f"no worker is left to measure {self._directory}: start one, and --resume goes on")
            with suppress(TimeoutError, FuturesCancelledError):
                wait([asked.future for asked in self._measured.values()], LOOK_SECONDS, "FIRST_COMPLETED")
            there = self._cluster.workers()
            for address, asked in list(self._measured.items()):
                if asked.future.done() or address not in there:
                    del self._measured[address]
                    self._take(address, asked)

    def _give(self, address: str, host: str) -> None:
        """Send the next waiting block to a worker, without the trials of workloads that were left out meanwhile."""
        while self._waiting and address not in self._measured:
            slots = [slot for slot in self._waiting.popleft() if slot.workload not in self.left_out]
            if slots:
                task = Task(run=self.run, slots=slots).model_dump_json()
                future = self._cluster.client.submit(self._cluster.ask, task, workers=[address], pure=False)
                self._measured[address] = Asked(future, slots, host)

    def _take(self, address: str, asked: Asked) -> None:
        try:
            said = _answer(asked.future)
        except WorkloadError as error:
            self._cluster.refuse(address, f"{asked.host} at {address} gets no more blocks: {error}")
            self._lose(asked, str(error))
        except (KilledWorker, TimeoutError):
            asked.future.cancel()
            self._lose(asked, DIED)
        else:
            self._keep(said)

    def _keep(self, block: Block) -> None:
        """Record a block. run.json is written first, because each trial names a testbed that run.json must have."""
        first = {} if self.run.testbeds else dict(block.testbed)
        testbeds = {**self.run.testbeds, block.name: block.testbed}
        self.run = self.run.model_copy(update={**first, "testbeds": testbeds})
        write_run(self._directory, self.run)
        append_trial(self._directory, *block.trials)
        for trial in block.trials:
            self._done(trial)
        self.left_out |= block.left_out

    def _lose(self, asked: Asked, why: str) -> None:
        number = asked.slots[0].block
        lost = [*self.run.lost_blocks, LostBlock(block=number, host=asked.host, why=why)]
        self.run = self.run.model_copy(update={"lost_blocks": lost})
        write_run(self._directory, self.run)
        self._lost[number] += 1
        if self._lost[number] == ATTEMPTS:
            raise ClusterError(f"block {number} was lost {ATTEMPTS} times, at last on {asked.host}: {why}")
        self._cluster.say(f"block {number} is measured once more, because {asked.host} lost it: {why}")
        self._waiting.appendleft(asked.slots)

    def end(self) -> None:
        """End the blocks that are still being measured, and their testbeds. Nothing of them is kept."""
        with suppress(ClusterError):  # the scheduler is gone: its workers then end by themselves
            if there := self._measured.keys() & self._cluster.workers().keys():
                self._cluster.client.run(worker.end, workers=list(there), on_error="ignore")


def _answer(future: Any) -> Block:
    """The block that a worker measured. Raises WorkloadError if it could not be measured, and KilledWorker or
    TimeoutError if the worker is gone and left no result."""
    if future.status not in ("finished", "error"):
        raise TimeoutError
    return Block.model_validate_json(future.result(RESULT_SECONDS))


@contextmanager
def cluster(named: str, options: list[Options], say: Say) -> Iterator[Cluster]:
    """The workers that --cluster names, started where needed, for runs with these options.

    named: a number of workers to start here, machines to start them on (such as root@a,root@b), or the address of a
    scheduler. Raises UsageError, ClusterError, and HostError for a machine that cannot be used.
    """
    if any(one.observes in ("profile", "walk") for one in options):
        raise UsageError("--cluster goes with none that leaves a profile or a walk: those stay on the worker")
    cores = max(count for one in options for count in one.cores)
    with ExitStack() as stack:
        if named.isdigit():
            address = stack.enter_context(workers_here(int(named), cores))
        elif "://" in named:
            address = named
        elif all(hosts := named.split(",")):
            address = stack.enter_context(workers_there(hosts))
        else:
            raise UsageError(
                f"--cluster {named!r}: give a number of workers, machines as ssh calls them, such as root@a,root@b, or "
                "a scheduler's address, such as tcp://host:8786"
            )
        try:
            client = stack.enter_context(Client(address, timeout=worker.SECONDS))
        except (OSError, ValueError) as error:
            raise ClusterError(worker.unreachable(address)) from error
        refusals: list[str] = []
        if not Cluster(client, refusals.append).admit(max(options, key=lambda one: max(one.cores))):
            missing = f"{address} has no worker: start one by lab.py worker {address}"
            raise ClusterError("; ".join(refusals) or missing)
        yield Cluster(client, say)
