"""A worker that takes its listener out of its epoll and puts it back, again and again, pays little for the library."""

import re
import select
import subprocess

import pytest

from tests.harness.apps import PRELOAD, Server
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.patience import patient

TIMES = 200
# System calls of the library for each time. nginx, with EPOLLEXCLUSIVE, does so after every 16 accepts; servers with
# green threads do it around each accept, and the worker then leaves its clone and adopts it again.
MOST = {select.EPOLLEXCLUSIVE: 20, 0: 80}

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.needs("strace"),
    NEEDS_TWO_CPUS,
]


def calls(environment: dict[str, str], trigger: int, tmp_path) -> int:
    """How many system calls a worker makes while it does so."""
    with Server(environment) as server:
        server.listen()
        workers = [server.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
        server.ask("tell", str(CPUS[0]), "watch_again", 20, trigger)  # from now on it watches with this trigger
        trace = tmp_path / "calls"
        counting = subprocess.Popen(
            ["strace", "-c", "-o", trace, "-p", str(workers[0])], stderr=subprocess.PIPE, text=True
        )
        assert "attached" in counting.stderr.readline()
        server.ask("tell", str(CPUS[0]), "watch_again", TIMES, trigger)
        counting.terminate()
        counting.communicate(timeout=patient(10))
    return int(re.search(r"^100\.00 +[\d.]+ +(?:\d+ +)?(\d+).* total$", trace.read_text(), re.MULTILINE)[1])


@pytest.mark.parametrize("trigger", MOST)
def test_watching_again_costs_few_system_calls(trigger, tmp_path):
    more = calls(PRELOAD, trigger, tmp_path) - calls({}, trigger, tmp_path)
    assert more / TIMES <= MOST[trigger]
