"""nginx with a file of 256 KB. Each byte is copied into nginx's memory and out again; with sendfile, none is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http
from workloads.generator import as_demanded
from workloads.load import Demand, Load
from workloads.nginx import Nginx, Site, nginx
from workloads.variants import Variant
from workloads.web_load import DIALOGUE
from workloads.workload import Cpus

FILE_BYTES = 256 << 10


class NginxFile(Nginx):
    """nginx that serves a file. sendfile is off, as by nginx's default, except in the variant that is about it."""

    name = "nginx-file"
    ways = {"sendfile": "on"}  # sendfile

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        (directory / "object").write_bytes(http.OBJECT * (FILE_BYTES // len(http.OBJECT)))
        sendfile = self.ways.get(variant.way, "off")
        answer = f"root {directory}; sendfile {sendfile}; try_files /object =404;"
        site = Site(answer=answer, main="user root;")  # only root may read the directory
        hosts, own_reuseport = (testbed.server, testbed.client), variant.own_reuseport
        with nginx(testbed, *hosts, cpus.server, directory, own_reuseport, variant.environment(), site=site) as pid:
            yield [pid]

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        """Load the server with the lab's generator, which checks each answer.

        wrk would count the bytes of answers that it cuts short.
        """
        return as_demanded(testbed, cpus, demand, self.ports(cpus), DIALOGUE)
