"""Starts a server on a testbed of its own, for programs such as bench/soak.py that are no sweep."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.experiment import usable_cpus
from fastsocket.steering import EmulatedNic, Plan
from topologies.queue_threads import choose, threads_of
from topologies.tag import RunTag
from topologies.testbed import Testbed
from workloads.nginx import Nginx
from workloads.variants import VARIANTS, Variant
from workloads.workload import Cpus, Workload


@contextmanager
def serving(
    cpus: Cpus, workload: Workload | None = None, variant: Variant = VARIANTS["base"]
) -> Iterator[tuple[Testbed, int]]:
    """Start a server, nginx by default, behind the emulated NIC that a sweep has. Yields the testbed, and the id of the
    server's first process."""
    workload = workload or Nginx()
    with ExitStack() as stack:
        tag = stack.enter_context(RunTag())
        testbed = stack.enter_context(Testbed(workload.topology(), tag, len(usable_cpus())))
        links = testbed.links_to(testbed.server)
        threads = stack.enter_context(threads_of(links)) if choose(None) == "threads" else {}
        for of_queues in threads.values():  # the steering plan then moves the threads of the server's own queues
            of_queues.pin(cpus.load)
        ports = workload.cpu_of_port(cpus) if variant.steering == "perfect" else {}
        plan = Plan(variant.steering, tuple(cpus.server), ports)
        stack.enter_context(stack.enter_context(EmulatedNic(links, threads)).steer(plan))
        directory = Path(stack.enter_context(TemporaryDirectory(dir=tag.directory)))
        pid, *_ = stack.enter_context(workload.serve(testbed, variant, cpus, directory))
        yield testbed, pid
