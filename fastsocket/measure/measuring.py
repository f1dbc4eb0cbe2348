"""Watch a live server for some seconds. Nothing is preloaded, restarted or pinned, and nothing stays afterwards."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from fastsocket.build import HERE, bpf_object
from fastsocket.libbpf import BpfError, timing
from fastsocket.measure.evaluation import Between, Calls, Seen
from fastsocket.measure.listeners import Listeners
from fastsocket.measure.measured import Measured, Missing
from fastsocket.measure.probe import Probe, total
from fastsocket.measure.reading import Reading, look, own, sockets_of
from fastsocket.measure.surroundings import library_in, steering_of
from fastsocket.measure.target import NoSuchServer, Target
from fastsocket.measure.tasks import stat_of, threads_of
from fastsocket.processes import epolls_with
from fastsocket.refusal import Cause
from fastsocket.servers import OutOfReach, remedy

SAMPLES = 50  # how often accept queues and the threads' CPUs are read in all; in long watches, once a second instead
WATCHERS_EVERY = 8  # the epolls are searched for listeners at each eighth sample
WATCHERS_SECONDS = 0.1  # searching ends after so many seconds: a server cannot use an epoll while it is read
MOST_THREADS = 128  # how many threads' CPUs are sampled
CALLS_PART, CALLS_SECONDS = 0.1, 1.0  # system calls are counted in this part of the time, at most so long: it costs CPU
CALLS_LEAST, CALLS_READS = 0.1, 2000  # counting stops after about so many reads, but not before so many seconds
BY_BPF = "local reads, connections of each worker, requests of each connection, lock contention and system calls"
TIMING = "run it as root, or with CAP_SYS_ADMIN"
RIGHTS = "run it as root, or with CAP_BPF and CAP_PERFMON"


def measure(target: Target, seconds: float) -> Measured:
    """Watch a server for some seconds, and return its numbers.

    Raises NoSuchServer for a server that does not listen, OutOfReach, and Ended where the server ends meanwhile.
    """
    try:
        with ExitStack() as stack:
            return _Measuring(target, stack).over(seconds)
    except (FileNotFoundError, ProcessLookupError) as error:
        target.check()
        raise OutOfReach(
            f"{target.name}, process {target.pid}, has ended but for some threads, and shows nothing of them"
        ) from error


class _Measuring:
    def __init__(self, target: Target, stack: ExitStack):
        self._target, self._processes = target, target.processes()
        self._missing: list[Missing] = []
        self._listeners = self._opened(stack)
        self._inodes = self._told() & sockets_of(self._processes)
        if not self._inodes:
            raise NoSuchServer(
                f"{target.name}, process {target.pid}, listens on no TCP port, nor does a process that it started"
            )
        self._probe = self._entered(stack)
        self._watchers: int | None = 0
        self._looked = 0.0  # seconds that the searches for watchers took so far

    def _opened(self, stack: ExitStack) -> Listeners:
        try:
            return stack.enter_context(Listeners(self._target.pid))
        except PermissionError as error:
            raise OutOfReach(
                f"{self._target.name} has a network namespace of its own, which may not be entered: {remedy()}"
            ) from error

    def _told(self) -> set[int]:
        try:
            return set(self._listeners.read())
        except OSError as error:
            raise OutOfReach(
                f"the kernel does not tell who listens: {error.strerror}: boot one with CONFIG_INET_DIAG"
            ) from error

    def _entered(self, stack: ExitStack) -> Probe | None:
        threads = {process: threads_of(process) for process in self._processes}
        ports = {listener.port for listener in own(self._listeners, self._inodes).values()}
        try:
            probe = stack.enter_context(Probe(threads, ports))
        except BpfError as error:
            self._missing.append(_without_bpf(BY_BPF, error))
            return None
        if not probe.sees_contentions:
            self._missing.append(Missing("lock contention", "this kernel does not show it", "boot Linux 5.19 or later"))
        return probe

    def over(self, seconds: float) -> Measured:
        pid, seen, most = self._target.pid, Seen(), min(CALLS_SECONDS, CALLS_PART * seconds)
        start = time.process_time()
        before = self._look()
        self._busiest = _busiest(before)
        self._samples_per_second = max(1.0, SAMPLES / max(1.0, seconds))
        self._sample(seconds - most, seen)
        calls = self._count_calls(seconds - most, most, seen)
        between = Between(before, self._look(), seen, has_rows=self._probe is not None)
        own = time.process_time() - start
        return Measured(
            pid=pid,
            name=self._target.name,
            processes=between.processes,
            threads=between.threads,
            seconds=between.seconds,
            usable_cpus=between.usable_cpus,
            watchers=self._watchers,
            passive=between.passive(),
            active=between.active(),
            queues=between.queues(),
            workers=between.workers(),
            cpus=between.machine(),
            others_percent=between.others_percent(),
            waited_percent=between.waited_percent(),
            costs=between.costs(calls),
            watching=between.watching(calls, start, own),
            namespace=between.namespace(),
            devices=steering_of(pid, self._missing),
            library=library_in(self._processes),
            missing=self._missing,
            changed=between.changed,
        )

    def _look(self) -> Reading:
        return look(self._target.pid, self._target.processes(), self._listeners, self._inodes, self._probe)

    def _look_for_watchers(self) -> None:
        """Count the epolls that hold a listener of the server, and keep the largest count so far.

        The largest count is right: nginx takes its listener out of an epoll for a moment now and then.
        """
        if self._watchers is None or self._looked > WATCHERS_SECONDS:
            return
        began = time.monotonic()
        try:
            self._watchers = max(self._watchers, epolls_with(self._inodes, self._processes))
        except PermissionError as error:
            self._watchers = None
            self._missing.append(Missing("which threads wait for connections", str(error), remedy()))
        self._looked += time.monotonic() - began

    def _count_calls(self, gone: float, most: float, seen: Seen) -> Calls | None:
        """Count system calls for about as long as CALLS_READS reads take; None where BPF cannot count them.

        gone: seconds of the watch so far. most: seconds that are left. Sampling goes on for all of them.
        """
        if not self._probe:
            self._sample(most, seen)
            return None
        before = total(self._probe.read().values())
        seconds = min(most, max(CALLS_LEAST, CALLS_READS * gone / before.reads)) if before.reads else most
        try:
            with ExitStack() as stack:
                is_timed = self._times_bpf(stack)
                stack.enter_context(self._probe.counting_calls())
                began = self._probe.took()
                self._sample(seconds, seen)
                took = self._probe.took() - began
        except BpfError as error:
            self._missing.append(_without_bpf("system calls", error))
            self._sample(most, seen)
            return None
        after = total(self._probe.read().values())
        self._sample(most - seconds, seen)
        return Calls(
            after.calls - before.calls,
            after.passive_firsts - before.passive_firsts,
            after.passive_reads - before.passive_reads,
            seconds,
            took if is_timed else None,
        )

    def _times_bpf(self, stack: ExitStack) -> bool:
        """Have the kernel time BPF programs until the stack ends. False: that is not allowed."""
        try:
            stack.enter_context(timing())
        except BpfError as error:
            self._missing.append(Missing("what BPF takes of the CPUs", error.reason, TIMING))
            return False
        return True

    def _sample(self, seconds: float, seen: Seen) -> None:
        """Take samples for so many seconds. Raises Ended."""
        for tick in _ticks(seconds, max(1, round(seconds * self._samples_per_second))):
            if tick % WATCHERS_EVERY == 1:
                self._look_for_watchers()
            for inode, listener in own(self._listeners, self._inodes).items():
                seen.queues[inode].append(listener.queue)
            for process, thread in self._busiest:
                if stat := stat_of(process, thread):
                    seen.cpus[thread].add(stat.cpu)
            self._target.check()


def _busiest(reading: Reading) -> list[tuple[int, int]]:
    """The process and number of each thread that has run longest so far, MOST_THREADS at most."""
    threads = sorted(reading.threads.items(), key=lambda item: -item[1].ran.seconds)
    return [(thread.process, number) for number, thread in threads[:MOST_THREADS]]


def _without_bpf(what: str, error: BpfError) -> Missing:
    if not bpf_object("measure").exists():
        return Missing(what, "the BPF programs are not built", f"make -C {HERE}")
    remedy = RIGHTS if error.cause is Cause.PRIVILEGE else error.cause.value or "boot another kernel"
    return Missing(what, error.reason, remedy)


def _ticks(seconds: float, number: int) -> Iterator[int]:
    """Yield 1, 2, … number, spread evenly over so many seconds, and return when these are over."""
    began = time.monotonic()
    for tick in range(1, number + 1):
        yield tick
        time.sleep(max(0.0, began + tick * seconds / number - time.monotonic()))
