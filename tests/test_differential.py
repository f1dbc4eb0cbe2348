"""Any program of socket calls sees the same with libfsocket.so and without.

Hypothesis draws programs, libfsocket_apps/interpreter.py runs them, once in a process with LD_PRELOAD and once in one
without. A failure prints the shortest program found, with what it saw in either. What is known to differ is left out
step by step: libfsocket_apps/differences.py.

Each version of the library's sources meets 300 programs of its own, the same ones wherever it is tested.
FSOCKET_DIFFERENTIAL=5000 runs 5000 random programs instead, FSOCKET_DIFFERENTIAL_SEED=<seed> those of an earlier run.
The seed is printed.
"""

import os
import random
import select
import socket
import sys
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fastsocket import shared_memory
from fastsocket.build import HERE, LIBRARY
from tests.harness.apps import EVERYTHING_ON, App
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS

INTERPRETER = Path(__file__).parent / "libfsocket_apps" / "interpreter.py"
PROGRAMS_TO_RUN = int(os.environ.get("FSOCKET_DIFFERENTIAL", "300"))


def seed_of(sources: Path) -> int:
    """The same for the same sources."""
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(sources.iterdir())))


USUAL = random.randrange(2**32) if "FSOCKET_DIFFERENTIAL" in os.environ else seed_of(HERE / "libfsocket")
SEED = int(os.environ.get("FSOCKET_DIFFERENTIAL_SEED", USUAL))
SANITIZED_IS_SLOWER = 3
FAIR_SHARE = 0.3
PHASES = [phase for phase in Phase if phase is not Phase.explain]  # the two columns explain more

NONBLOCK, CLOEXEC = int(socket.SOCK_NONBLOCK), int(socket.SOCK_CLOEXEC)
IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 24, 51
NO_LIMIT = 2**32 - 1
BACKLOG = 64  # more than a program connects: what does not fit waits for a timer

# A failure needs time to be shortened; a program that hangs is ended by the interpreter.
pytestmark = [pytest.mark.timeout(60 + PROGRAMS_TO_RUN), NEEDS_TWO_CPUS]


# ---- programs


def one_of_role(*roles: str, most: int = 2) -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from(roles), st.integers(0, most)).map(lambda chosen: "{}#{}".format(*chosen))


LISTENERS = one_of_role("listener")
EPOLLS = one_of_role("epoll", most=1)
STREAMS = one_of_role("accepted", "accepted", "client", most=3)
DESCRIPTORS = st.one_of(
    one_of_role("accepted", most=3), LISTENERS, one_of_role("any", most=9), st.integers(3, 12).map("fd#{}".format)
)
NUMBERS = st.integers(3, 14).map("fd#{}".format)
FLAGS = st.sampled_from([NONBLOCK, NONBLOCK, NONBLOCK | CLOEXEC, 0])
REUSEADDR = socket.SOL_SOCKET, socket.SO_REUSEADDR
REUSEPORT = socket.SOL_SOCKET, socket.SO_REUSEPORT
KEEPALIVE = socket.SOL_SOCKET, socket.SO_KEEPALIVE
OPTIONS = st.sampled_from(
    [
        REUSEADDR,
        REUSEPORT,
        KEEPALIVE,
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
        (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
        (socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE),
    ]
)
READ_ONLY_OPTIONS = st.sampled_from(
    [
        (socket.SOL_SOCKET, name)
        for name in (
            socket.SO_ACCEPTCONN,
            socket.SO_ERROR,
            socket.SO_TYPE,
            socket.SO_INCOMING_CPU,
            socket.SO_DOMAIN,
            socket.SO_PROTOCOL,
        )
    ]
)
EVENTS = st.tuples(
    st.sampled_from(
        [
            select.EPOLLIN,
            select.EPOLLIN,
            select.EPOLLIN | select.EPOLLRDHUP,
            0,
            select.EPOLLIN | select.EPOLLOUT,
            select.EPOLLOUT,
        ]
    ),
    st.sampled_from(
        [
            0,
            0,
            select.EPOLLET,
            select.EPOLLET,
            select.EPOLLONESHOT,
            select.EPOLLEXCLUSIVE,
            select.EPOLLET | select.EPOLLONESHOT,
        ]
    ),
).map(sum)
TIMEOUTS = st.sampled_from([0, 0, 0, 0, 1, -1])
FAMILIES = st.sampled_from(["inet", "inet", "inet", "inet6", "unix"])


def operation(name: str, *arguments) -> st.SearchStrategy[tuple]:
    """A step whose arguments are strategies, or values."""
    strategies = [it if isinstance(it, st.SearchStrategy) else st.just(it) for it in arguments]
    return st.tuples(st.just(name), *strategies)


def option(name: str, descriptors, options, *value) -> st.SearchStrategy[tuple]:
    return st.tuples(descriptors, options, *value).map(lambda parts: (name, parts[0], *parts[1], *parts[2:]))


CONNECTIONS = st.one_of(
    operation("client", LISTENERS, st.sampled_from([None, None, "inet"]), FLAGS),
    operation("accept", LISTENERS, st.sampled_from([0, NONBLOCK, NONBLOCK, NONBLOCK | CLOEXEC, None]), st.booleans()),
    operation("send", STREAMS, st.integers(1, 5)),
    operation(
        "recv", STREAMS, st.sampled_from([1, 4096]), st.sampled_from([0, 0, socket.MSG_DONTWAIT, socket.MSG_PEEK])
    ),
    operation("shutdown", DESCRIPTORS, st.sampled_from([socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR])),
    operation("answer", one_of_role("accepted", most=3), st.integers(1, 5), st.booleans()),
    operation("close", DESCRIPTORS),
)
WATCHING = st.one_of(
    operation(
        "epoll_ctl", st.sampled_from(["ADD", "ADD", "MOD", "DEL"]), EPOLLS, DESCRIPTORS, EVENTS, st.integers(0, 1)
    ),
    operation("epoll_ctl", "ADD", EPOLLS, one_of_role("accepted", most=3), EVENTS, 0),
    operation("epoll_wait", EPOLLS, TIMEOUTS),
    operation("epoll_wait", EPOLLS, 0),
    operation("epoll_pwait", EPOLLS, TIMEOUTS),
    operation("epoll_create", st.sampled_from([0, select.EPOLL_CLOEXEC])),
)
POLLING = st.one_of(
    operation("poll", st.lists(DESCRIPTORS, max_size=3), st.sampled_from([select.POLLIN, 0, select.POLLOUT, 5])),
    operation("ppoll", st.lists(DESCRIPTORS, max_size=3), st.just(select.POLLIN | select.POLLOUT)),
    operation("select", st.lists(DESCRIPTORS, max_size=3)),
)
SOCKETS = st.one_of(
    operation("socket", FAMILIES, st.sampled_from(["stream", "stream", "stream", "datagram"]), FLAGS),
    operation("bind", one_of_role("socket", "any"), st.sampled_from(["loopback", "any"]), st.booleans()),
    operation("bind_path", one_of_role("socket"), st.sampled_from("ab")),
    operation("bind_like", one_of_role("socket"), DESCRIPTORS),
    operation("listen", st.one_of(one_of_role("socket"), LISTENERS, DESCRIPTORS), st.sampled_from([BACKLOG, 4096, -1])),
    operation("connect", st.one_of(one_of_role("socket"), DESCRIPTORS), DESCRIPTORS),
    operation("connect_nowhere", one_of_role("socket", "any")),
    operation("disconnect", DESCRIPTORS),
    operation("name", DESCRIPTORS, st.sampled_from(["getsockname", "getpeername"])),
    option("set_option", DESCRIPTORS, OPTIONS, st.sampled_from([1, 0])),
    option("get_option", DESCRIPTORS, st.one_of(OPTIONS, READ_ONLY_OPTIONS)),
)
DUPLICATION = st.one_of(
    operation("open"),
    operation("dup", DESCRIPTORS),
    operation("fcntl_dup", DESCRIPTORS, st.sampled_from(["F_DUPFD", "F_DUPFD_CLOEXEC"]), st.integers(3, 12)),
    operation("dup2", DESCRIPTORS, st.one_of(DESCRIPTORS, NUMBERS)),
    operation("dup3", DESCRIPTORS, st.one_of(DESCRIPTORS, NUMBERS), st.sampled_from([0, CLOEXEC])),
    operation("close_range", NUMBERS, st.one_of(NUMBERS, st.just(NO_LIMIT)), st.sampled_from([0, 0, 2, 4])),
    operation("closefrom", NUMBERS),
    operation("set_nonblocking", DESCRIPTORS, st.booleans()),
    operation("pass_on", DESCRIPTORS, st.booleans()),
)
PLAIN_STEPS = st.one_of(
    CONNECTIONS, CONNECTIONS, CONNECTIONS, WATCHING, WATCHING, WATCHING, SOCKETS, POLLING, DUPLICATION
)

LISTENING = [
    ("socket", "inet", "stream", NONBLOCK),
    ("set_option", "socket#0", *REUSEADDR, 1),
    ("bind", "socket#0", "loopback", True),
    ("listen", "socket#0", BACKLOG),
]
LISTENING_ALONE = [
    ("socket", "inet6", "stream", NONBLOCK),
    ("bind", "socket#0", "any", False),
    ("listen", "socket#0", BACKLOG),
]
# A worker gets its clone when it first waits.
SERVING = [
    ("epoll_create", 0),
    ("epoll_ctl", "ADD", "epoll#-1", "listener#0", select.EPOLLIN, 0),
    ("epoll_wait", "epoll#-1", 0),
]
CLIENT = ("client", "listener#0", None, NONBLOCK)
ACCEPTING = [CLIENT, ("accept", "listener#0", NONBLOCK, True)]
REQUEST = ("send", "client#0", 3)
LEARNING = [("habituate", "listener#0")]


def joined(parts: tuple[list, ...]) -> list:
    return [*chain(*parts)]


def watch_accepted(how: int = 0) -> tuple:
    return "epoll_ctl", "ADD", "epoll#0", "accepted#0", select.EPOLLIN | how, 0


PREFACES = st.sampled_from(
    [
        [],
        LISTENING,
        LISTENING + SERVING,
        LISTENING_ALONE + SERVING,
        [*LISTENING, CLIENT, *SERVING],
        LISTENING + SERVING + ACCEPTING,
        LISTENING + SERVING + ACCEPTING + [watch_accepted()],
        LISTENING + SERVING + ACCEPTING + [REQUEST, watch_accepted(select.EPOLLET)],
        LISTENING + SERVING + ACCEPTING + [watch_accepted(select.EPOLLET), REQUEST],
        LISTENING + SERVING + LEARNING,
        LISTENING + SERVING + LEARNING + ACCEPTING + [REQUEST],
    ]
)
WORKERS = st.tuples(st.sampled_from([[], SERVING, SERVING + ACCEPTING]), st.lists(PLAIN_STEPS)).map(joined)
ELSEWHERE = st.one_of(
    operation("fork", WORKERS),
    operation("thread", WORKERS),
    operation("spawn", st.sampled_from(["subprocess", "posix_spawn", "fork"])),
)
STEPS = st.one_of(PLAIN_STEPS, ELSEWHERE)
# Lists of lists, because one list that is long on average is one that Hypothesis cannot shrink below that.
PROGRAMS = st.tuples(PREFACES, *[st.lists(STEPS)] * 3).map(joined)


# ---- running them


# Two at once must not take each other's ports.
ON_A_NETWORK_OF_ITS_OWN = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


class Interpreter(App):
    """libfsocket_apps/interpreter.py, which runs one program after the other. It and its programs log nothing."""

    def __init__(self, environment: dict[str, str], cpus: list[int]):
        network = [] if os.geteuid() else ON_A_NETWORK_OF_ITS_OWN
        super().__init__([sys.executable, INTERPRETER, *map(str, cpus)], environment, launcher=network)
        self.tell(True, [], [])
        self.read()  # so it has started, and has counters

    def total(self, name: str) -> int:
        return sum(getattr(cpu, name) for cpu in shared_memory.counters(self.process))


@contextmanager
def interpreters(*environments: dict[str, str]):
    """A pair, each of which prefers another CPU, so that both can run at once."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Interpreter(environment, CPUS[::way]))
            for environment, way in zip(environments, (1, -1))
        ]


def compare(pair: list[Interpreter], program: list, pinned: bool, avoided: list[str]) -> None:
    for interpreter in pair:
        interpreter.tell(pinned, avoided, program)
    one, other = [interpreter.read() for interpreter in pair]
    assert one == other, side_by_side(one, other, pinned)


def side_by_side(ours: list, plain: list, pinned: bool) -> str:
    lines = ["", "on one CPU:" if pinned else "on two CPUs:"]
    for one, other in zip_longest(ours, plain):
        lines += [f"  {one[0]}: {one[1]}"] if one == other else [f"! with    {one}", f"! without {other}"]
    return "\n".join(lines)


@dataclass
class Shares:
    """In how many programs the library did something."""

    programs: int = 0
    adopting: int = 0
    accepting: int = 0
    holding: int = 0  # answers until their connection was closed


def compare_any_programs(pair: list[Interpreter], number: int, measured: Interpreter | None = None) -> Shares:
    shares = Shares()

    @seed(SEED)
    @settings(
        max_examples=number,
        deadline=None,
        print_blob=True,
        phases=PHASES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(program=PROGRAMS, pinned=st.sampled_from([True, True, True, False]))
    def agree(program, pinned):
        before = counted(measured)
        compare(pair, program, pinned, list(DIFFERENT))
        adopted, accepted, held = [now > then for now, then in zip(counted(measured), before)]
        shares.programs += 1
        shares.adopting += adopted
        shares.accepting += accepted
        shares.holding += held

    agree()
    return shares


COUNTED = ("adopted", "accepted_local", "answers_with_fin")


def counted(interpreter: Interpreter | None) -> list[int]:
    return [interpreter.total(name) if interpreter else 0 for name in COUNTED]


@pytest.fixture
def announce(capsys):
    """A line on the terminal, of a test that passes, too."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line} (FSOCKET_DIFFERENTIAL_SEED={SEED})")

    print(f"FSOCKET_DIFFERENTIAL_SEED={SEED}")
    return say


# ---- the tests


@pytest.mark.slow
def test_programs_see_the_same_each_time(announce):
    """Without the library in both: else the comparison below would compare accidents."""
    with interpreters({}, {}) as pair:
        announce(f"{compare_any_programs(pair, PROGRAMS_TO_RUN).programs} programs, twice the same")


@pytest.mark.slow
def test_programs_see_the_same_with_the_library(preload, announce):
    sanitized = "ASAN_OPTIONS" in preload
    number = PROGRAMS_TO_RUN // (SANITIZED_IS_SLOWER if sanitized else 1)
    with interpreters(preload, {}) as pair:
        shares = compare_any_programs(pair, number, pair[0])
    announce(
        f"{shares.programs} programs, {shares.adopting} adopt a clone, {shares.accepting} accept from one, "
        f"{shares.holding} send an answer with its FIN"
    )
    if sanitized:
        return  # so few programs vary too much in their shares
    assert shares.adopting >= shares.programs * FAIR_SHARE
    assert shares.accepting >= shares.programs * FAIR_SHARE / 2
    assert bool(shares.holding) == ("FSOCKET_ANSWER_WITH_FIN" in preload)


@pytest.fixture(scope="module")
def pair():
    with interpreters({"LD_PRELOAD": str(LIBRARY)} | EVERYTHING_ON, {}) as pair:
        yield pair


SECOND = ("socket", "inet", "stream", NONBLOCK)
# The shortest programs that see what differences.py knows, by its names.
DIFFERENT = {
    "connects_behind_older_connections": [*LISTENING, CLIENT, *SERVING, *ACCEPTING, ("send", "accepted#0", 1)],
    "binds_beside_a_listener": [
        *LISTENING,
        SECOND,
        ("set_option", "socket#0", *REUSEPORT, 1),
        ("bind_like", "socket#0", "listener#0"),
    ],
    "reads_reuseport_of_a_connection": [*LISTENING, *SERVING, *ACCEPTING, ("get_option", "accepted#0", *REUSEPORT)],
    "closes_it_on_its_way": [*LISTENING, *SERVING, CLIENT, ("pass_on", "listener#0", True), REQUEST],
    "closes_what_its_child_watches": [
        *LISTENING,
        *SERVING,
        CLIENT,
        (
            "fork",
            [
                ("epoll_create", 0),
                ("epoll_ctl", "ADD", "epoll#-1", "listener#0", 1, 0),
                ("epoll_wait", "epoll#-1", 0),
                ("close", "listener#0"),
                ("epoll_wait", "epoll#1", 0),
            ],
        ),
    ],
    "closes_an_epoll_on_its_way": [
        *LISTENING,
        *SERVING,
        CLIENT,
        ("pass_on", "epoll#0", True),
        ("epoll_wait", "epoll#0", 0),
    ],
    "has_a_table_of_its_own": [
        *LISTENING,
        *SERVING,
        (
            "thread",
            [
                CLIENT,
                ("fcntl_dup", "listener#0", "F_DUPFD", 3),
                ("close_range", "fd#3", "fd#3", 2),
                ("accept", "listener#0", 0, False),
            ],
        ),
    ],
    "is_served_by_several_cpus": [*LISTENING, *SERVING, ("thread", [*SERVING, CLIENT, ("epoll_wait", "epoll#0", 0)])],
    "is_watched_by_two_names": [
        *LISTENING,
        *SERVING,
        CLIENT,
        ("dup", "listener#0"),
        ("epoll_ctl", "ADD", "epoll#0", "listener#1", select.EPOLLIN, 0),
        ("epoll_wait", "epoll#0", 0),
    ],
    "blocks_where_it_watches": [
        *LISTENING,
        *SERVING,
        CLIENT,
        ("set_nonblocking", "listener#0", False),
        ("fork", [*SERVING, ("epoll_wait", "epoll#-1", 0)]),
    ],
    "pauses_an_unnamed_port": [
        *LISTENING_ALONE,
        *SERVING,
        ("shutdown", "listener#0", socket.SHUT_RD),
        ("socket", "inet6", "stream", NONBLOCK),
        ("bind_like", "socket#0", "listener#0"),
    ],
    "watches_an_ended_listener": [
        *LISTENING,
        *SERVING,
        ("disconnect", "listener#0"),
        ("thread", SERVING),
        ("listen", "listener#0", BACKLOG),
        ("epoll_wait", "epoll#0", 0),
        CLIENT,
        ("epoll_wait", "epoll#0", 0),
        ("epoll_wait", "epoll#1", 0),
    ],
    "resumes_without_reuseaddr": [
        *LISTENING[:1],
        *LISTENING[2:],
        *SERVING,
        *ACCEPTING,
        ("shutdown", "listener#0", socket.SHUT_RD),
        ("listen", "listener#0", BACKLOG),
    ],
    "shuts_down_what_does_not_listen": [
        *LISTENING,
        *SERVING,
        ("shutdown", "listener#0", socket.SHUT_RD),
        ("shutdown", "listener#0", socket.SHUT_WR),
        ("listen", "listener#0", BACKLOG),
        *ACCEPTING,
        ("send", "accepted#0", 1),
    ],
    "watches_once_beside_a_clone": [
        *LISTENING,
        *SERVING,
        CLIENT,
        ("epoll_create", 0),
        ("epoll_ctl", "ADD", "epoll#1", "listener#0", select.EPOLLONESHOT | select.EPOLLIN, 0),
    ],
    "waits_beside_an_unread_edge": [
        *LISTENING,
        *SERVING,
        ("epoll_wait", "epoll#0", 0),
        *ACCEPTING,
        REQUEST,
        watch_accepted(select.EPOLLET),
        *[("epoll_wait", "epoll#0", 0)] * 2,
    ],
    "answers_unread": [
        *LISTENING,
        *SERVING,
        *LEARNING,
        *ACCEPTING,
        REQUEST,
        ("answer", "accepted#0", 3, False),
        *[("recv", "client#0", 4096, socket.MSG_DONTWAIT)] * 2,
    ],
    "reads_quickack_of_a_connection": [
        *LISTENING,
        *SERVING,
        *LEARNING,
        *ACCEPTING,
        ("get_option", "accepted#0", socket.IPPROTO_TCP, socket.TCP_QUICKACK),
    ],
}

ON_TWO_CPUS = {"is_served_by_several_cpus"}  # which one a client runs on is chance, and so is what it sees
LEARNED = {"answers_unread"}  # the library does not learn it where a program waits for a CPU in between


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.xfail(
                strict=name not in ON_TWO_CPUS | LEARNED,
                raises=AssertionError,
                reason="the library is known to answer otherwise",
            ),
        )
        for name in DIFFERENT
    ],
)
def test_known_difference(pair, name):
    """When the library has learned to answer as libc does, its predicate in differences.py can go."""
    compare(pair, DIFFERENT[name], name not in ON_TWO_CPUS, [other for other in DIFFERENT if other != name])


@pytest.mark.parametrize("name", DIFFERENT)
def test_known_difference_is_avoided(pair, name):
    compare(pair, DIFFERENT[name], name not in ON_TWO_CPUS, [name])


def test_what_is_no_epoll_stays_none_after_a_wait_for_it(preload):
    program = [
        ("socket", "inet", "stream", 0),
        ("bind", "socket#0", "loopback", True),
        ("listen", "socket#0", BACKLOG),
        ("epoll_wait", "epoll#0", 0),
        ("client", "listener#0", None, NONBLOCK),
        ("accept", "listener#0", 0, False),
        ("epoll_ctl", "ADD", "epoll#0", "accepted#0", select.EPOLLIN, 0),
    ]
    with interpreters(preload, {}) as pair:
        compare(pair, program, True, list(DIFFERENT))


def test_a_listener_that_connects_elsewhere_reads_the_cpu_of_its_packets(preload):
    program = [
        *LISTENING,
        ("shutdown", "listener#0", socket.SHUT_RD),
        ("connect_nowhere", "listener#0"),
        ("get_option", "listener#0", socket.SOL_SOCKET, socket.SO_INCOMING_CPU),
    ]
    with interpreters(preload, {}) as pair:
        compare(pair, program, True, [])


def test_a_child_that_ends_leaves_its_parents_epoll_what_it_holds(preload):
    """The child has a second name of its parent's epoll when it closes an epoll of its own."""
    child = [*SERVING, ("fcntl_dup", "listener#0", "F_DUPFD", 3), ("fcntl_dup", "epoll#0", "F_DUPFD", 3)]
    program = [*LISTENING, *SERVING, ("fork", child), CLIENT, ("epoll_wait", "epoll#0", 0)]
    with interpreters(preload, {}) as pair:
        compare(pair, program, True, list(DIFFERENT))


IN_PARENTS_EPOLL = {
    "takes out": ("DEL", 0),
    "pauses": ("MOD", select.EPOLLOUT),
    "changes": ("MOD", select.EPOLLIN | select.EPOLLET),
}


@pytest.mark.parametrize("what", IN_PARENTS_EPOLL)
def test_what_a_child_changes_in_its_parents_epoll_is_changed_for_both(preload, what):
    operation, events = IN_PARENTS_EPOLL[what]
    child = [("epoll_ctl", operation, "epoll#0", "listener#0", events, 0), ("epoll_wait", "epoll#0", 0)]
    program = [*LISTENING, *SERVING, ("fork", child), CLIENT, *[("epoll_wait", "epoll#0", 0)] * 2]
    with interpreters(preload, {}) as pair:
        compare(pair, program, True, list(DIFFERENT))


@pytest.mark.parametrize("pinned", [True, False])
def test_an_epoll_that_is_closed_by_one_name_reports_by_the_other(preload, pinned):
    """By close(), and by dup2(). Another epoll watches the listener, too."""
    closed = [*LISTENING, *SERVING, *SERVING, ("fcntl_dup", "epoll#1", "F_DUPFD", 9), ("close", "epoll#1")]
    replaced = [*closed[:-1], ("open",), ("dup2", "fd#6", "fd#5")]
    with interpreters(preload, {}) as pair:
        for way in closed, replaced:
            for step in ("epoll_wait", "epoll#0", 0), ("epoll_wait", "epoll#1", 0):
                compare(pair, [*way, CLIENT, step], pinned, list(DIFFERENT))
