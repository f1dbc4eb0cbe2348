"""Decide which listener is given to which CPU, or say why none can be."""

from collections import defaultdict
from dataclasses import dataclass, field

from fastsocket.attach.workers import Listener, Worker

EACH_ITS_OWN = "give each worker its own: nginx `listen … reuseport`, HAProxy `bind … shards by-thread`"
CONFINED = "nginx `worker_cpu_affinity auto`, HAProxy `cpu-map`, or attach --pin"


class CannotAttach(Exception):
    """Nothing was changed; the message says why, and what helps."""

    exit_status = 3


@dataclass(frozen=True)
class Given:
    """A listener and the CPU whose connections it gets."""

    inode: int
    address: str
    worker: Worker
    cpu: int
    pins: bool = field(compare=False)  # True: the worker must still be confined to that CPU


def plan(found: list[Listener], pin: bool) -> list[Given]:
    """The listeners that can be given to a CPU, each with its CPU. Raises CannotAttach with the reasons if none can."""
    groups = defaultdict(list)
    for listener in found:
        groups[listener.address].append(listener)
    if not groups:
        raise CannotAttach("it listens on no TCP port")
    given: list[Given] = []
    why_not = []
    for address, group in groups.items():
        try:
            given += _placed(address, group, pin)
        except CannotAttach as reason:
            why_not.append(f"{address}: {reason}")
    if not given:
        raise CannotAttach("; ".join(why_not))
    return given


def _placed(address: str, group: list[Listener], pin: bool) -> list[Given]:
    workers = [_watcher(listener, len(group)) for listener in group]
    cpus = _cpus(workers, pin)
    return [
        Given(listener.inode, address, worker, cpu, worker.cpus() != {cpu})
        for listener, worker, cpu in zip(group, workers, cpus)
    ]


def _watcher(listener: Listener, in_group: int) -> Worker:
    """The only worker of a listener. Raises CannotAttach when the listener may not be given to one worker's CPU."""
    if not listener.is_ours:
        raise CannotAttach("another server has a listener there, too, whose part of the connections would change")
    if any(worker.is_of_go() for worker in listener.workers):
        raise CannotAttach(
            "a Go program: its threads wait in one epoll, and any of them accepts, so no CPU is a worker's"
        )
    if in_group == 1:
        workers = len(listener.workers)
        raise CannotAttach(f"one listener, which {workers} workers share; {EACH_ITS_OWN}" if workers > 1 else _ALONE)
    if len(listener.workers) != 1:
        raise CannotAttach(f"a listener is watched by {len(listener.workers) or 'none'} of the workers; {EACH_ITS_OWN}")
    (worker,) = listener.workers
    return worker


_ALONE = "one listener with one worker, which has all connections already"


def _cpus(workers: list[Worker], pin: bool) -> list[int]:
    """A CPU for each worker: the CPU to which the worker is confined, or, with pin, one of the CPUs where it may run.

    Raises CannotAttach.
    """
    if len(set(workers)) < len(workers):
        raise CannotAttach("a worker watches several listeners of the same address; attach knows one for each")
    allowed = [worker.cpus() for worker in workers]
    if pin and any(len(cpus) > 1 for cpus in allowed):
        allowed = spread(allowed)
    for worker, cpus in zip(workers, allowed):
        if len(cpus) > 1:
            raise CannotAttach(f"worker {worker.thread} moves between {len(cpus)} CPUs: confine it: {CONFINED}")
    chosen = [min(cpus) for cpus in allowed]
    if len(set(chosen)) < len(chosen):
        raise CannotAttach(f"some of {len(workers)} workers share a CPU: {sorted(chosen)}; let there be one for each")
    return chosen


def spread(allowed: list[set[int]]) -> list[set[int]]:
    """A CPU of its own for each worker, as sets of one CPU. Workers that may run on the fewest CPUs choose first.

    Raises CannotAttach when there are too few CPUs.
    """
    chosen: dict[int, int] = {}
    for number in sorted(range(len(allowed)), key=lambda at: (len(allowed[at]), at)):
        free = allowed[number] - set(chosen.values())
        if not free:
            raise CannotAttach(f"{len(allowed)} workers may run on {len(set().union(*allowed))} CPUs: no CPU for each")
        chosen[number] = min(free)
    return [{chosen[number]} for number in range(len(allowed))]
