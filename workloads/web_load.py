"""The load of a web server or a proxy: the lab's generator sends at a rate, wrk at full speed."""

from topologies.testbed import Testbed
from workloads.generator import Dialogue, open_loop
from workloads.http import OBJECT, PORT
from workloads.load import Demand, Load
from workloads.workload import Cpus
from workloads.wrk import wrk

DIALOGUE = Dialogue(
    request="GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n", begins="HTTP/1.1 200", ends=OBJECT.decode()
)


def web_load(testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
    """Load a web server, with one connection per request. Raises WorkloadError."""
    if demand.rate:
        return open_loop(testbed, cpus, demand, range(PORT, PORT + 1), DIALOGUE)
    return wrk(testbed, cpus, demand.seconds)
