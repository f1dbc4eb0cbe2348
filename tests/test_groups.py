"""Servers that share a port by SO_REUSEPORT: each gets its part, whether it has the library or not."""

import select
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import LOOPBACK, Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import adopters
from tests.harness.waiting import wait_until

PRELOAD = {"LD_PRELOAD": str(LIBRARY)}
CONNECTIONS = 30  # on each CPU: of these, one of two servers gets fewer than five once in ten million times

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@pytest.fixture
def start(request):
    """Starts servers that share a port."""
    with ExitStack() as servers:
        started = []

        def start_one(environment: dict[str, str] = PRELOAD, workers: int = len(CPUS)) -> Server:
            server = servers.enter_context(Server(environment, log=None))
            server.listen(LOOPBACK, False, True, started[0].port if started else 0, "", True)
            started.append(server)
            server.workers = {server.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS[:workers]}
            return server

        yield start_one


def shares(servers: list[Server]) -> list[int]:
    """How many connections each of them got."""
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(servers[0].request, cpu, CONNECTIONS // 2) for cpu in CPUS * 2]
        counted = Counter(answered["pid"] for future in asked for answered in future.result())
    return [sum(counted[worker] for worker in server.workers) for server in servers]


def all_get_their_part(servers: list[Server]) -> bool:
    """Not only by chance: each gets a third of an even share or more, and does so five times."""
    return all(min(shares(servers)) >= 2 * CONNECTIONS // len(servers) // 3 for _ in range(5))


@pytest.mark.parametrize(
    "first, second",
    [(PRELOAD, {}), ({}, PRELOAD), (PRELOAD, PRELOAD)],
    ids=["with and without", "without and with", "both with"],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_two_servers_share_a_port(start, first, second, workers):
    """One worker, or one on each CPU."""
    servers = [start(first, workers), start(second, workers)]
    wait_until(lambda: all_get_their_part(servers), "every server gets its part")


@pytest.mark.parametrize("leaver", range(3))
def test_when_one_server_leaves_all_others_and_a_new_one_get_their_part(start, leaver):
    servers = [start(workers=1) for _ in range(3)]
    gone = servers.pop(leaver)
    for cpu in CPUS[:1]:
        gone.ask("tell", str(cpu), "close")
    gone.ask("close")
    servers.append(start(workers=1))
    servers[-1].port = gone.port
    wait_until(lambda: all_get_their_part(servers), "every server gets its part")


@pytest.mark.parametrize(
    "left", [None, ("close",), ("delete",), ("mod", 0)], ids=["never", "closed", "deleted", "paused"]
)
def test_while_one_server_has_no_worker_the_other_one_gets_its_part(start, left):
    """What the kernel gives to the first waits for its next worker, and is answered by it."""
    waits = start(workers=2 if left else 0)
    for cpu in CPUS if left else []:
        waits.ask("tell", str(cpu), *left)
    serves = start()
    wait_until(lambda: serves.total("adopted") + serves.total("fallen_back") >= 2, "both workers wait")
    connections = [connection for cpu in CPUS for connection in serves.connect(cpu, CONNECTIONS)]
    with ThreadPoolExecutor(len(connections)) as clients:
        answers = clients.map(answer, connections)
        heir = waits.ask("fork", "heir")
        counted = Counter(answered["pid"] for answered in answers)
    assert sum(counted[pid] for pid in serves.workers) >= CONNECTIONS // 2
    assert counted[heir["pid"]] >= CONNECTIONS // 2
    assert sum(counted.values()) == 2 * CONNECTIONS


@pytest.mark.parametrize("marked", ["before listen", "after listen"])
def test_cpus_that_the_application_wrote_on_its_listeners_stay_there(marked):
    """In reverse order: worker 0 runs on CPU 1 and serves the connections of CPU 0."""
    with Server(PRELOAD, log=None) as server:
        server.know(server.ask("listen_as_shards", CPUS, marked))
        workers = {}
        for index, cpu in enumerate(CPUS):
            server.ask("choose_shard", index)
            workers[cpu] = server.ask("fork", str(index), CPUS[1 - index])["pid"]
        for cpu in CPUS:
            assert pids(server.request(cpu, 10)) == {workers[cpu]}
        assert server.ask("cpus_of_shards") == CPUS


def shards(server: Server) -> list[int]:
    """A listener for each CPU, which the library marks, and a worker for each; who they are."""
    server.know(server.ask("listen_as_shards", CPUS, "not"))
    workers = []
    for index, cpu in enumerate(CPUS):
        server.ask("choose_shard", index)
        workers.append(server.ask("fork", str(index), cpu)["pid"])
    return workers


def test_a_listener_for_each_worker_gets_the_connections_of_its_cpu():
    with Server(PRELOAD) as server:
        workers = shards(server)
        for cpu, worker in zip(CPUS, workers):
            assert pids(server.request(cpu, 10)) == {worker}
        assert server.per_cpu("accepted_local") == [10, 10]


def test_a_listener_of_its_own_that_is_watched_again_stays_its_workers():
    """As nginx watches again, with EPOLLEXCLUSIVE."""
    with Server(PRELOAD) as server:
        workers = shards(server)
        for index, (cpu, worker) in enumerate(zip(CPUS, workers)):
            server.ask("tell", str(index), "watch_again", 3, select.EPOLLEXCLUSIVE)
            assert pids(server.request(cpu, 10)) == {worker}
        assert server.per_cpu("accepted_local") == [10, 10]


def test_workers_that_open_their_listeners_themselves_serve():
    """Each process has its own; the one of their master is closed."""
    with Server(PRELOAD) as server:
        server.listen(LOOPBACK, False, True, 0, "", True)
        workers = [server.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
        for cpu in CPUS:
            server.ask("tell", str(cpu), "listen_for_itself")
        server.ask("close")
        for cpu in CPUS:
            answers = server.request(cpu, 20)
            assert len(answers) == 20 and pids(answers) <= set(workers)


def test_a_listener_of_three_that_is_marked_no_longer_gets_its_part():
    """Two workers on one CPU. One of them leaves its listener, which then belongs to no CPU."""
    with Server(PRELOAD) as server:
        server.know(server.ask("listen_as_shards", [CPUS[0], *CPUS], "not"))
        for index, cpu in enumerate([CPUS[0], *CPUS]):
            server.ask("choose_shard", index)
            server.ask("fork", str(index), cpu)
        assert adopters(server.pid) == {CPUS[0]: 2, CPUS[1]: 1}
        server.ask("tell", "0", "mod", 0)
        assert adopters(server.pid) == {CPUS[0]: 1, CPUS[1]: 1}
        server.ask("tell", "0", "mod", select.EPOLLIN)
        assert len([answered for cpu in CPUS for answered in server.request(cpu, 10)]) == 20


def test_a_listener_that_is_closed_leaves_the_others_alone():
    with Server(PRELOAD) as server:
        server.know(server.ask("listen_as_shards", CPUS, "not"))
        server.ask("choose_shard", 0)
        worker = server.ask("fork", "a", CPUS[0])
        for index in range(len(CPUS)):
            server.ask("close_shard", index)
        server.ask("tell", "a", "about")
        assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
        assert server.ask("count_descriptors") < 10


def test_servers_on_one_port_of_two_addresses_are_not_in_each_others_way():
    with Server(PRELOAD) as one, Server(PRELOAD) as other:
        one.listen()
        other.listen("127.0.0.2", False, True, one.port)
        for server, host in ((one, LOOPBACK), (other, "127.0.0.2")):
            workers = [server.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
            for cpu, worker in zip(CPUS, workers):
                assert pids(server.request(cpu, 10, host)) == {worker}
            assert server.per_cpu("accepted_local") == [10, 10]


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_program_that_the_application_attached_to_its_group_stays_there(chosen):
    with Server(PRELOAD, log=None) as server:
        server.know(server.ask("listen_as_chosen", chosen))
        workers = []
        for index, cpu in enumerate(CPUS):
            server.ask("choose_shard", index)
            workers.append(server.ask("fork", str(index), cpu)["pid"])
        for cpu in CPUS:
            assert pids(server.request(cpu, 10)) == {workers[chosen]}
