"""Apache with its event MPM and a 64-byte object: a process per core, in which one thread accepts and many serve."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

# Apache's processes may read none of our files, so the object is the text of a page that replaces each answer.
CONFIGURATION = """\
ServerRoot {directory}
ServerName server
PidFile {directory}/apache.pid
ErrorLog {directory}/error.log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule rewrite_module {modules}/mod_rewrite.so
User www-data
Group www-data
Listen 0.0.0.0:{port}
ListenBacklog 65535
{listeners}
KeepAlive Off
StartServers {processes}
ServerLimit {processes}
ThreadsPerChild {threads}
MinSpareThreads {all_threads}
MaxSpareThreads {all_threads}
MaxRequestWorkers {all_threads}
RewriteEngine on
RewriteRule ^ - [R=200]
ErrorDocument 200 "{object}"
"""
MODULES = Path("/usr/lib/apache2/modules")
THREADS = 32  # threads of each process
CORES = os.cpu_count() or 1  # all online CPUs: ListenCoresBucketsRatio says for how many of them there is a listener


class Apache(WebServer):
    """Apache cannot pin its processes. They share the server's CPUs; libfsocket.so pins each of them to one."""

    name = "apache"
    binaries = {"apache2": ["-v"], "wrk": ["--version"]}
    packages = {"apache2": "apache2-bin", "wrk": "wrk"}

    def why_not(self, variant: Variant) -> str | None:
        return "Apache pins no process to a CPU" if variant.attached or variant.by_program else super().why_not(variant)

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        processes = len(cpus.server)
        configuration = directory / "apache.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=directory,
                modules=MODULES,
                port=http.PORT,
                object=http.OBJECT.decode().replace("\n", "\\n"),
                listeners=f"ListenCoresBucketsRatio {CORES // processes}" if variant.own_reuseport else "",
                processes=processes,
                threads=THREADS,
                all_threads=THREADS * processes,
            )
        )
        argv = ["apache2", "-DFOREGROUND", "-f", str(configuration)]
        with self.started(testbed, variant, cpus, directory, argv) as pids:
            yield pids
