"""The third way to emulate a NIC: at the receiving end of a link, XDP hands each packet to the thread of a CPU.

The CPU that sends runs the XDP program, and wakes the other CPU's thread (cpumap, Linux 4.15, commit 6710e1126934).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from fastsocket.steering.backends import steer
from fastsocket.steering.cpumap import Cpumap
from fastsocket.steering.emulated import Link
from fastsocket.steering.plan import Plan


class CpumapNic:
    """Steers packets at the receiving ends of these links."""

    def __init__(self, links: Sequence[Link]):
        self._devices = [link.receiver for link in links]

    @contextmanager
    def steer(self, plan: Plan) -> Iterator[None]:
        """Steer at all links by one plan during the with block. Afterwards the links are as before.

        Raises exceptions with an exit_status.
        """
        with ExitStack() as stack:
            for device in self._devices:
                stack.enter_context(steer(Cpumap(), device, plan))
            yield
