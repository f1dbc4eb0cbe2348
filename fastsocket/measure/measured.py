"""What is told of a server: numbers, each None where it could not be had. What they mean is in docs/measure.md."""

from dataclasses import dataclass

SHORT = 3  # reads of a connection: one with more is kept open for several requests


@dataclass(frozen=True)
class Missing:
    """What could not be measured, why not, and what it takes."""

    what: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Connections:
    """Of one direction. Passive ones were accepted, active ones opened by the server."""

    per_second: float
    reads: int
    reads_each: float | None  # for each new connection
    local_percent: float | None  # of the reads: on the CPU that had handled the packet
    first_local_percent: float | None  # of the first reads


@dataclass(frozen=True)
class Queue:
    """The accept queue of an address; of several listeners on it, all together."""

    address: str
    listeners: int
    mean: float
    most: int
    limit: int
    dropped: int


@dataclass(frozen=True)
class Worker:
    """A thread that ran meanwhile."""

    process: int
    thread: int
    may_run_on: str
    ran_on: list[int]  # CPUs on which it was seen
    cpu_percent: float  # of the time
    waited_percent: float  # of the time in which it was ready to run
    connections_percent: float | None  # of those that the server accepted


@dataclass(frozen=True)
class Cpu:
    """One that the server may use."""

    cpu: int
    packets_percent: float  # of the packets that the machine took in
    softirq_percent: float  # of the CPU's time
    busy_percent: float
    stolen_percent: float


@dataclass(frozen=True)
class Costs:
    """For each connection, or for each read where connections are kept open."""

    unit: str
    user_us: float
    system_us: float
    softirq_us: float  # of the whole machine
    interrupts: float  # between CPUs, of the whole machine
    segments: float | None  # in and out, of all connections in the server's network namespace
    calls: float | None
    contentions: float | None


@dataclass(frozen=True)
class Watching:
    """What it takes to watch. Percentages are of the CPUs that the server may use."""

    start_seconds: float  # CPU time of this process before it began to watch
    command_percent: float  # its CPU time since
    bpf_percent: float | None


@dataclass(frozen=True)
class Namespace:
    """The network namespace that the server is in, with all others there."""

    accepted_per_second: float
    opened_per_second: float
    queues_overflowed: int
    dropped: int
    time_wait: int


@dataclass(frozen=True)
class Steering:
    """How a network device spreads what it receives."""

    device: str
    queues: int
    rps: bool
    rfs: bool
    nic: str  # what `fastsocket nic` shows


@dataclass(frozen=True)
class Library:
    """What libfsocket.so does in the server, or why it is not there."""

    loaded: bool
    obstacle: str  # why it cannot be loaded; empty: it could, or it is not known
    accelerated: bool
    parts: list[str]  # that did something since the server started


@dataclass(frozen=True)
class Measured:
    """A server over some seconds."""

    pid: int
    name: str
    processes: int
    threads: int
    seconds: float
    usable_cpus: list[int]
    watchers: int | None  # epolls that hold one of its listeners
    passive: Connections | None
    active: Connections | None
    queues: list[Queue]
    workers: list[Worker]
    cpus: list[Cpu]
    others_percent: float  # of those CPUs' time: neither the server's nor softirq's nor idle
    waited_percent: float  # of the time in which the server was ready to run
    costs: Costs | None
    watching: Watching
    namespace: Namespace
    devices: list[Steering]
    library: Library
    missing: list[Missing]
    changed: bool  # threads came or went meanwhile

    @property
    def is_idle(self) -> bool:
        """Too little happened to tell anything."""
        if self.passive and self.active:
            return self.passive.reads + self.active.reads < 100
        return (self.namespace.accepted_per_second + self.namespace.opened_per_second) * self.seconds < 100

    @property
    def closes_first(self) -> bool:
        """Whether connections are closed from here: then they wait here for stray packets, for a minute."""
        made = (self.namespace.accepted_per_second + self.namespace.opened_per_second) * self.seconds
        return self.namespace.time_wait > made / 10
