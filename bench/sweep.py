"""A sweep: it runs every trial of a schedule on this machine, and records each trial as soon as it is done."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path

from bench.capacity import with_capacities
from bench.experiment import UsageError, usable_cpus
from bench.neighbour import neighbour
from bench.observers import observer
from bench.placement import place
from bench.rate import of_latencies, offered
from bench.schedule import Slot, schedule
from bench.soundness import BUSY
from bench.threads import cores_first
from bench.trial import Bench, Observe
from bench.two_hosts import hosts_for
from fastsocket import reads
from fastsocket.libbpf import BpfError
from fastsocket.steering import EmulatedNic
from fastsocket.steering.cpus import machine_cpus
from probes.trial import Probes
from records.run import RUN, Circumstances, Options, RecordError, Run, read_run, write_run
from records.trials import Trial, append_trial, drop_torn_line, failed_trial, read_trials
from setup.fingerprint import fingerprint, versions
from setup.kernel_settings import kernel_settings
from topologies.cpumap_nic import CpumapNic
from topologies.queue_threads import threads_of
from topologies.tag import RunTag
from topologies.testbed import Testbed
from workloads import WORKLOADS, limits
from workloads.process import WorkloadError
from workloads.variants import VARIANTS

FAILURES_TOLERATED = 3  # if so many trials of a workload fail in a row, the rest of that workload is left out


def is_run(directory: Path) -> bool:
    """Whether the directory holds a run."""
    return (directory / RUN).exists()


def new_run(directory: Path, options: Options) -> Run:
    """Make the run directory and write run.json. Raises UsageError if the directory has files or cannot be written."""
    if is_run(directory):
        raise UsageError(f"{directory} holds a run already: go on with --resume, or choose another --out")
    if directory.is_dir() and any(directory.iterdir()):
        raise UsageError(f"{directory} holds other files: choose another --out")
    run = Run(
        **dict(circumstances_here(options)),
        options=options,
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        planned_trials=len(schedule(options)),
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_run(directory, run)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
    return run


def circumstances_here(options: Options) -> Circumstances:
    """The circumstances of this machine, but for unavailable, client and capacities, which prepared() finds out."""
    installed = {tool: said for name in options.workloads for tool, said in _versions(name, options).items()}
    return Circumstances(
        fingerprint={**fingerprint(), "reads seen by": reads.tracepoint(), "emulated NIC": options.nic},
        kernel_settings=kernel_settings(),
        machine_cpus=machine_cpus(),
        versions={**versions(), **installed},
        placements=place(options.cores, cores_first(usable_cpus()), elsewhere=bool(options.client)),
        unavailable={},
    )


def _versions(workload: str, options: Options) -> dict[str, str]:
    """The versions of a workload's programs that run on this machine: not the load generator, if a client has that."""
    return WORKLOADS[workload].versions(without=WORKLOADS[workload].loader if options.client else "")


def resumed_run(directory: Path, wanted: Options, said: frozenset[str]) -> Run:
    """The run to resume, with more blocks if the caller asks for more.

    Workloads that the run had left out are tried again, because their server may work now. said: the fields of wanted
    that the caller named. Raises UsageError if there is no run, if its options differ from what the caller named, if
    this machine lacks some of its CPUs, or if the load would have another number of connections per core.
    """
    try:
        run = read_run(directory)
        drop_torn_line(directory)
    except RecordError as error:
        raise UsageError(f"{error}: nothing to resume") from error
    needed = {cpu for placement in run.placements for cpu in (*placement.server_cpus, *placement.load_cpus)}
    if not (run.testbeds or needed <= set(usable_cpus())):
        raise UsageError(f"{directory} was measured on CPUs {sorted(needed)}, of which this machine lacks some")
    was = limits.Limits(**run.options.limits).connections_per_core
    if limits.read().connections_per_core != was:
        raise UsageError(
            f"{directory} was measured with {was} connections per core: set {limits.PREFIX}CONNECTIONS_PER_CORE={was}"
        )
    return _extended(directory, run.model_copy(update={"left_out": {}}), wanted, said)


def _extended(directory: Path, run: Run, wanted: Options, said: frozenset[str]) -> Run:
    """The run, with more blocks if the caller named more. Raises UsageError if the run's options differ from those that
    the caller named. The run of a day gets no more blocks, because each block is a part of the day."""
    was, more = run.options, "blocks" in said and wanted.blocks > run.options.blocks and not run.options.day
    for name in ["experiment", *sorted(said - ({"blocks"} if more else set()))]:
        if getattr(wanted, name) != getattr(was, name):
            raise UsageError(
                f"{directory} is a run with {name} {_shown(getattr(was, name))}, not {_shown(getattr(wanted, name))}: "
                "leave the option out, or choose another --out"
            )
    if not more:
        return run
    options = was.model_copy(update={"blocks": wanted.blocks})
    return run.model_copy(update={"options": options, "planned_trials": len(schedule(options)), "complete": False})


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def remaining(directory: Path, run: Run) -> list[Slot]:
    """The trials that are not recorded yet, of workloads that are not left out."""
    done = {trial.index for trial in read_trials(directory)}
    return [slot for slot in schedule(run.options) if slot.index not in done and slot.workload not in run.left_out]


@contextmanager
def bench(
    workloads: list[str],
    queues: int,
    nic: str,
    count_calls: bool = False,
    variants: Iterable[str] = (),
    two_hosts: Callable[[RunTag], Testbed] | None = None,
) -> Iterator[tuple[Bench, Probes]]:
    """Make the testbeds of these workloads. Yields a Bench for them, and its Probes. At the end all of it is removed.

    queues: of each network device. nic: how the NIC is emulated. count_calls: whether system calls are counted.
    variants: the variants that will run; some need a testbed of their own. two_hosts: makes the testbed of a client on
    another machine; None: there is no such client.
    """
    with ExitStack() as stack:
        tag = stack.enter_context(RunTag())
        topologies = dict.fromkeys(WORKLOADS[name].topology for name in workloads)
        kinds = product(topologies, sorted({0, *(VARIANTS[name].table for name in variants)}))
        testbeds = {
            (topology, table): stack.enter_context(
                two_hosts(tag) if two_hosts else Testbed(topology(), tag, queues, table)
            )
            for topology, table in kinds
        }
        links = [link for testbed in testbeds.values() for link in testbed.links_to(testbed.server)]
        threads = stack.enter_context(threads_of(links if nic == "threads" else []))
        emulated = CpumapNic(links) if nic == "cpumap" else stack.enter_context(EmulatedNic(links, threads))
        probes = stack.enter_context(Probes(count_calls))
        yield Bench(tag, testbeds, emulated, threads, probes), probes


def measure(directory: Path, run: Run, began: float, done: Callable[[Trial], None]) -> None:
    """Run the remaining trials, calling done after each trial is on disk.

    began: time.monotonic() at the start of the command. An interruption loses no trial that was measured. A trial that
    fails is run once more, unless the workload's last trial failed, too; if it fails again it is kept as failed. After
    FAILURES_TOLERATED failed trials in a row the rest of a workload is left out.

    Raises TestbedError, HostError and BpfError. Raises WorkloadError if no trial of the whole run could be measured,
    and UsageError for the run of a cluster.
    """
    if run.testbeds:
        raise UsageError(f"{directory} was measured by a cluster: go on with --cluster")
    tolerance = Tolerance()
    try:
        with prepared(run) as (trials, run):
            write_run(directory, run)
            for trial in tried(trials, remaining(directory, run), run, directory, tolerance):
                append_trial(directory, trial)
                done(trial)
    finally:
        finish(directory, run, tolerance.left_out, began)
    require_one(directory)


@contextmanager
def prepared(run: Run) -> Iterator[tuple[Bench, Run]]:
    """Make the testbeds for a run. Yields the Bench, and the run with these fields filled in: the metrics that this
    machine cannot give, the client machine, and base's capacities."""
    options = run.options
    count_calls = options.observes == "calls"
    two_hosts = partial(hosts_for, options) if options.client else None
    with bench(options.workloads, len(usable_cpus()), options.nic, count_calls, options.variants, two_hosts) as (
        trials,
        probes,
    ):
        run = run.model_copy(update={"unavailable": probes.unavailable, "client": trials.client})
        yield trials, with_capacities(run, lambda slot, rate: _run(trials, slot, run, rate))


def tried(trials: Bench, slots: list[Slot], run: Run, directory: Path, tolerance: "Tolerance") -> Iterator[Trial]:
    """Run the trials of these slots, and yield each when it has run. Workloads that are left out do not run.

    directory: where an observer writes its files.
    """
    for slot in slots:
        if slot.workload not in tolerance.left_out:
            trial = _tried(trials, slot, run, directory)
            if trial.failed and not tolerance.has_failed(slot.workload):
                trial = _tried(trials, slot, run, directory).model_copy(update={"repeated": trial.failed})
            yield trial
            tolerance.note(trial)


def finish(directory: Path, run: Run, left_out: dict[str, str], began: float) -> None:
    """Write to run.json how long the run took, what was left out, and whether it is complete.

    began: time.monotonic() at the start of this part of the run.
    """
    wall_seconds = run.wall_seconds + time.monotonic() - began
    run = run.model_copy(update={"wall_seconds": wall_seconds, "left_out": left_out})
    write_run(directory, run.model_copy(update={"complete": not remaining(directory, run)}))


class Tolerance:
    """Leaves out the rest of a workload after several failures in a row."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}  # workload -> why
        self._in_a_row: Counter[str] = Counter()

    def has_failed(self, workload: str) -> bool:
        """Whether the workload's last trial failed."""
        return bool(self._in_a_row[workload])

    def note(self, trial: Trial) -> None:
        self._in_a_row[trial.workload] = self._in_a_row[trial.workload] + 1 if trial.failed else 0
        if self._in_a_row[trial.workload] == FAILURES_TOLERATED:
            self.left_out[trial.workload] = trial.failed


def _tried(trials: Bench, slot: Slot, run: Run, directory: Path) -> Trial:
    """Run a trial. Returns it, or a failed trial with the reason."""
    rate, started = offered(run.options, slot.workload, slot.cores, slot.block, run.capacities), time.time()
    try:
        return _run(trials, slot, run, rate, observer(run.options, directory, slot.index), run.options.burst)
    except (WorkloadError, BpfError) as error:
        return failed_trial(str(error), **vars(slot), started=started, rate=rate)


def _run(
    trials: Bench,
    slot: Slot,
    run: Run,
    rate: float | None = None,
    observe: Observe | None = None,
    burst: int = 0,
) -> Trial:
    placement = next(placement for placement in run.placements if placement.cores == slot.cores)
    with ExitStack() as stack:
        if run.options.neighbour is not None:
            stack.enter_context(neighbour(placement.server_cpus[0], run.options.neighbour))
        calmer = of_latencies(run.options, slot.workload, slot.cores, run.capacities)
        trial = trials.run(slot, placement, run.options.seconds, rate, observe, run.options.one_queue, calmer, burst)
    if run.options.neighbour is None:
        return trial
    # A busy process was asked for, so it does not spoil the trial.
    return trial.model_copy(update={"spoilt": [reason for reason in trial.spoilt if reason != BUSY]})


def is_measured(directory: Path) -> bool:
    """Whether the run in a directory has a trial that did not fail."""
    return any(not trial.failed for trial in read_trials(directory))


def require_one(directory: Path) -> None:
    """Raises WorkloadError if the run has no trial that did not fail."""
    trials = read_trials(directory)
    if all(trial.failed for trial in trials):
        why = trials[-1].failed if trials else "no server here has one of these variants"
        raise WorkloadError(f"nothing could be measured: {why}")
