"""The variants: the ways to run a server that the figures compare."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

from fastsocket.build import LIBRARY
from fastsocket.launch import Wishes
from fastsocket.launch import environment as preloaded
from fastsocket.steering import Mode
from fastsocket.steering.rfs import Rfs
from topologies.namespace import ESTABLISHED_TABLE

LIBRARY_OFF = Wishes(
    listen_table=False,
    balance=False,
    fast_epoll=False,
    flow_deliver=False,
    answer_with_fin=False,
    delayed_ack=False,
    defer_accept=False,
)
LISTEN_TABLE = Wishes()
DELIVERED = Wishes(flow_deliver=True)
FEWER_PACKETS = replace(DELIVERED, answer_with_fin=True, delayed_ack=True)
NO_LISTEN_TABLE = Wishes(listen_table=False)
SKB_DEFER_MAX = "net/core/skb_defer_max"  # Linux 6.0, commit 39564c3fdc66: an skb is freed on the CPU that allocated it


@dataclass(frozen=True)
class Variant:
    """One way to run a server, the same for every server."""

    name: str
    description: str
    own_reuseport: bool = False  # True: the server itself opens a SO_REUSEPORT listener for each worker
    way: str = ""  # a mode of work that only some servers have: a key of Workload.ways
    attached: bool = False  # True: fastsocket attach is used, where the server has more than one worker
    by_program: bool = False  # True: a program chooses among the server's own listeners (workloads/cpu_program.py)
    preload: Wishes | None = None  # what is asked of libfsocket.so; None: the library is not preloaded
    steering: Mode = "rss"  # the emulated NIC's mode
    taken_in: Literal["own", "others", "both"] = "own"  # CPUs that take packets in: the server's, as many others, both
    rfs: bool = False  # True: the kernel passes packets on to the CPU that reads
    sysctls: Mapping[str, str] = field(default_factory=dict)  # sysctls of the server's network namespace
    table: int = 0  # entries of the server's own table of established connections; 0: it shares the machine's table
    machine_sysctls: Mapping[str, str] = field(default_factory=dict)  # sysctls of the whole machine
    observed: bool = True  # True: the lab's probes run

    @property
    def has_local_listeners(self) -> bool:
        """Whether libfsocket.so clones listeners, and so counts what it does."""
        return self.preload is not None and self.preload.listen_table is not False

    @property
    def chooses_ports(self) -> bool:
        """Whether libfsocket.so chooses the source ports of active connections."""
        return self.preload is not None and self.preload.flow_deliver is True

    @property
    def changes_the_machine(self) -> bool:
        """Whether the variant changes settings of the whole machine. RFS does, because of its table of sockets."""
        return self.rfs or bool(self.machine_sysctls)

    @property
    def needs_own_network(self) -> bool:
        """Whether the variant needs a network of the lab, because it changes the server's NIC or network.

        Perfect filters do not count: they leave passive connections to RSS.
        """
        steered = self.steering == "atr" or self.taken_in != "own" or self.rfs
        return steered or bool(self.sysctls or self.table)

    def why_not(self) -> str | None:
        """Why this machine cannot run the variant, or None."""
        for name in (*self.sysctls, *self.machine_sysctls, *([ESTABLISHED_TABLE] if self.table else [])):
            if not Path("/proc/sys", name).exists():
                return (
                    f"{name.replace('/', '.')} is not here: this kernel lacks it, or another network namespace has it"
                )
        return Rfs().why_not() if self.rfs else None

    def environment(self) -> Mapping[str, str]:
        """The environment of the server's process."""
        return preloaded(os.environ, nameable(LIBRARY), self.preload) if self.preload else os.environ


@cache
def nameable(library: Path) -> Path:
    """A path of the library that LD_PRELOAD can name. Where its own has a space or a colon, a descriptor's in /proc."""
    if not re.search(r"[: ]", str(library)):
        return library
    return Path(f"/proc/{os.getpid()}/fd/{os.open(library, os.O_RDONLY | os.O_CLOEXEC)}")


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("base", "one listener shared by all workers"),
        Variant("latest", "the server's own SO_REUSEPORT listeners", own_reuseport=True),
        Variant(
            "attached",
            "latest, and fastsocket attach gives each listener to the CPU of its worker",
            own_reuseport=True,
            attached=True,
        ),
        Variant("rfs", "latest, and Receive Flow Steering", own_reuseport=True, rfs=True),
        Variant(
            "fastsocket", "libfsocket.so preloaded, steering by perfect filters", preload=DELIVERED, steering="perfect"
        ),
        Variant(
            "balanced",
            "fastsocket with a program that leaves connections to another worker where their own is away or busy",
            preload=replace(DELIVERED, balance=True),
            steering="perfect",
        ),
        Variant(
            "latest+fastsocket",
            "latest with libfsocket.so preloaded, steering by perfect filters",
            own_reuseport=True,
            preload=DELIVERED,
            steering="perfect",
        ),
        # Other ways to bring connections to the worker of a CPU: a program by hand, and what other servers have.
        Variant(
            "cbpf",
            "latest, and a classic BPF program that chooses the listener by the CPU (SO_ATTACH_REUSEPORT_CBPF)",
            own_reuseport=True,
            by_program=True,
        ),
        Variant("multi-queue", "HAProxy gives a connection to the less loaded of two threads", way="multi-queue"),
        Variant("multi-queue-fair", "HAProxy gives connections to its threads in turn", way="multi-queue-fair"),
        Variant("by-group", "HAProxy opens a listener for each half of its threads", way="by-group"),
        Variant("exact-balance", "Envoy gives a connection to the worker that has the fewest", way="exact-balance"),
        Variant(
            "cpu-locality",
            "Envoy has a BPF program choose the listener by the CPU",
            own_reuseport=True,
            way="cpu-locality",
        ),
        Variant("off", "libfsocket.so preloaded with everything off", preload=LIBRARY_OFF),
        Variant(
            "fewer-packets",
            "fastsocket with Answer with FIN and Delayed ACK",
            preload=FEWER_PACKETS,
            steering="perfect",
        ),
        Variant(
            "defer-accept",
            "fewer-packets with deferred accept()",
            preload=replace(FEWER_PACKETS, defer_accept=True),
            steering="perfect",
        ),
        Variant(
            "packets-alone",
            "Answer with FIN and Delayed ACK alone",
            preload=replace(NO_LISTEN_TABLE, answer_with_fin=True, delayed_ack=True),
        ),
        Variant("answer-with-fin", "Answer with FIN alone", preload=replace(NO_LISTEN_TABLE, answer_with_fin=True)),
        Variant("delayed-ack", "Delayed ACK alone", preload=replace(NO_LISTEN_TABLE, delayed_ack=True)),
        Variant("defer-accept-alone", "deferred accept() alone", preload=replace(NO_LISTEN_TABLE, defer_accept=True)),
        Variant(
            "fastsocket+answer-with-fin",
            "fewer-packets without Delayed ACK",
            preload=replace(DELIVERED, answer_with_fin=True),
            steering="perfect",
        ),
        Variant(
            "fastsocket+delayed-ack",
            "fewer-packets without Answer with FIN",
            preload=replace(DELIVERED, delayed_ack=True),
            steering="perfect",
        ),
        # Where softirq runs, for a server that does not use all CPUs.
        Variant("other-core", "packets are taken in on another core than the worker's", taken_in="others"),
        Variant("both-cores", "packets are taken in on the worker's core and on another one, by RSS", taken_in="both"),
        Variant("both-cores-rfs", "both-cores with Receive Flow Steering", taken_in="both", rfs=True),
        # How packets are steered, and who chooses the ports of active connections.
        Variant(
            "any-port", "fastsocket, but the kernel chooses source ports", preload=LISTEN_TABLE, steering="perfect"
        ),
        Variant("atr", "fastsocket steered by ATR", preload=DELIVERED, steering="atr"),
        Variant(
            "atr-any-port", "steered by ATR, and the kernel chooses source ports", preload=LISTEN_TABLE, steering="atr"
        ),
        Variant("rss", "fastsocket steered by RSS", preload=DELIVERED),
        # Every subset of Local Listen Table, Receive Flow Deliver and Fast-Epoll; fastsocket is the first two.
        Variant("listen-table", "the Local Listen Table alone", preload=LISTEN_TABLE),
        Variant(
            "flow-deliver",
            "Receive Flow Deliver alone",
            preload=replace(NO_LISTEN_TABLE, flow_deliver=True),
            steering="perfect",
        ),
        Variant("fast-epoll-alone", "Fast-Epoll alone", preload=replace(NO_LISTEN_TABLE, fast_epoll=True)),
        Variant(
            "listen-table+fast-epoll", "without Receive Flow Deliver", preload=replace(LISTEN_TABLE, fast_epoll=True)
        ),
        Variant(
            "flow-deliver+fast-epoll",
            "without the Local Listen Table",
            steering="perfect",
            preload=replace(NO_LISTEN_TABLE, flow_deliver=True, fast_epoll=True),
        ),
        Variant(
            "fast-epoll", "fastsocket with Fast-Epoll", preload=replace(DELIVERED, fast_epoll=True), steering="perfect"
        ),
        # Ideas that the slides left for the future, where a server or the kernel has them.
        Variant("sendfile", "files are sent without a copy into the server's memory (sendfile)", way="sendfile"),
        Variant(
            "busy-poll",
            "base whose waiting processes take in packets themselves for up to 50 µs (busy polling)",
            machine_sysctls={"net/core/busy_poll": "50", "net/core/busy_read": "50"},
        ),
        Variant("unobserved", "base without the lab's probes", observed=False),
        # Features of today's kernel, switched off.
        Variant(
            "no-skb-pool", "base without the kernel's deferred freeing of skbs", machine_sysctls={SKB_DEFER_MAX: "0"}
        ),
        Variant("no-direct-tcp", "base without early demux", sysctls={"net/ipv4/tcp_early_demux": "0"}),
        # The Local Established Table's closest relative: a table for each network namespace.
        Variant("table-1k", "base with a table of 1,024 established connections", table=1 << 10),
        Variant("table-16k", "base with a table of 16,384 established connections", table=1 << 14),
        Variant("table-256k", "base with a table of 262,144 established connections", table=1 << 18),
    )
}
