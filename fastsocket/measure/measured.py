"""The result of a measurement: a server's numbers; None where one could not be had. docs/measure.md explains them."""

from dataclasses import dataclass

SHORT = 3  # reads: a connection with more of them is kept open for several requests


@dataclass(frozen=True)
class Missing:
    """What could not be measured, why not, and what it takes."""

    what: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Connections:
    """The connections of one direction: passive connections were accepted, active ones opened by the server."""

    per_second: float
    reads: int
    reads_each: float | None  # reads for each new connection
    local_percent: float | None  # how many of the reads were on the CPU that had handled the packet
    first_local_percent: float | None  # how many of the connections' first reads were local


@dataclass(frozen=True)
class Queue:
    """The accept queue of an address. Where several listeners share the address, their queues are added up."""

    address: str
    listeners: int
    mean: float
    most: int
    limit: int
    dropped: int


@dataclass(frozen=True)
class Worker:
    """A thread of the server that ran during the measurement."""

    process: int
    thread: int
    may_run_on: str
    ran_on: list[int]  # CPUs on which it was seen
    cpu_percent: float  # CPU time, in percent of the measurement's time
    waited_percent: float  # waiting for a CPU, in percent of the time in which the thread was ready to run
    connections_percent: float | None  # this thread's part of the connections that the server accepted


@dataclass(frozen=True)
class Cpu:
    """A CPU that the server may use."""

    cpu: int
    packets_percent: float  # this CPU's part of the packets that the machine received
    softirq_percent: float  # time in interrupts and softirq, in percent of the CPU's time; so are the next two
    busy_percent: float
    stolen_percent: float


@dataclass(frozen=True)
class Costs:
    """What a connection costs, or a read where connections are kept open."""

    unit: str
    user_us: float
    system_us: float
    softirq_us: float  # softirq time of the whole machine
    interrupts: float  # interrupts between CPUs, of the whole machine
    segments: float | None  # TCP segments in and out, of all connections in the server's network namespace
    calls: float | None
    contentions: float | None


@dataclass(frozen=True)
class Watching:
    """What the measurement itself costs. Percentages are of the time of the CPUs that the server may use."""

    start_seconds: float  # CPU time of this process before it began to watch
    command_percent: float  # CPU time of this process since then
    bpf_percent: float | None  # time in the BPF programs


@dataclass(frozen=True)
class Namespace:
    """What happened in the server's network namespace, for the server and all other programs there."""

    accepted_per_second: float
    opened_per_second: float
    queues_overflowed: int
    dropped: int
    time_wait: int


@dataclass(frozen=True)
class Steering:
    """How a network device spreads the packets that it receives."""

    device: str
    queues: int
    rps: bool
    rfs: bool
    nic: str  # what `fastsocket nic` shows


@dataclass(frozen=True)
class Library:
    """What libfsocket.so does in the server, or why it is not loaded."""

    loaded: bool
    obstacle: str  # why the library cannot be loaded; empty: it could be loaded, or that is not known
    accelerated: bool
    parts: list[str]  # the parts of the library that did something since the server started


@dataclass(frozen=True)
class Measured:
    """All numbers of a server that was watched for some seconds."""

    pid: int
    name: str
    processes: int
    threads: int
    seconds: float
    usable_cpus: list[int]
    watchers: int | None  # how many epolls hold one of the server's listeners
    passive: Connections | None
    active: Connections | None
    queues: list[Queue]
    workers: list[Worker]
    cpus: list[Cpu]
    others_percent: float  # part of the usable CPUs' time that was neither the server's nor softirq's nor idle
    waited_percent: float  # waiting for a CPU, in percent of the time in which the server's threads were ready to run
    costs: Costs | None
    watching: Watching
    namespace: Namespace
    devices: list[Steering]
    library: Library
    missing: list[Missing]
    changed: bool  # True: threads of the server came or went during the measurement

    @property
    def is_idle(self) -> bool:
        """Whether too little happened to tell anything: fewer than 100 reads, or fewer than 100 connections."""
        if self.passive and self.active:
            return self.passive.reads + self.active.reads < 100
        return (self.namespace.accepted_per_second + self.namespace.opened_per_second) * self.seconds < 100

    @property
    def closes_first(self) -> bool:
        """Whether this machine closes its connections first: they then stay here in TIME_WAIT, for a minute."""
        made = (self.namespace.accepted_per_second + self.namespace.opened_per_second) * self.seconds
        return self.namespace.time_wait > made / 10
