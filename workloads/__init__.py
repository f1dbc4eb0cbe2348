"""What the lab measures: the servers, the variants in which they run, and the load that they get."""

from workloads.haproxy import HAProxy
from workloads.lighttpd import Lighttpd
from workloads.memcached import Memcached
from workloads.nginx import Nginx
from workloads.nginx_file import NginxFile
from workloads.nginx_kept import NginxKept
from workloads.nginx_proxy import NginxProxy
from workloads.nginx_slow import NginxSlow
from workloads.peers.apache import Apache
from workloads.peers.envoy import Envoy
from workloads.peers.h2o import H2O
from workloads.peers.haproxy import HAProxy28
from workloads.peers.nginx import StaticNginx
from workloads.peers.valkey import Valkey, ValkeyWithThreads
from workloads.pressure import HAProxyUnderPressure
from workloads.redis import Redis
from workloads.workload import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Nginx(),
        HAProxy(),
        Lighttpd(),
        Memcached(),
        Redis("redis", value_bytes=64, keys=10_000),
        Redis("redis-memory", value_bytes=16_384, keys=10_000),  # 160 MB in each instance: more than a cache holds
        HAProxyUnderPressure("haproxy-0", 0),
        HAProxyUnderPressure("haproxy-50k", 50_000),
        HAProxyUnderPressure("haproxy-200k", 200_000),
        NginxProxy("nginx-proxy", kept=False),
        NginxProxy("nginx-proxy-kept", kept=True),
        NginxFile(),
        NginxSlow(),
        NginxKept(),
        Envoy(),
        HAProxy28(),
        StaticNginx(),
        Apache(),
        H2O(),
        Valkey(),
        ValkeyWithThreads(),
    )
}
