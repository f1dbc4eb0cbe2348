"""The names of servers, settings and unmeasured values in sentences, tables and figures."""

NOT_AVAILABLE, NOT_MEASURED = "not available here", "no trial measured it"
_NAMES = {  # workload -> the server's name, if it differs from the workload's
    "haproxy": "HAProxy",
    "haproxy-2.8": "HAProxy 2.8",
    "haproxy-0": "HAProxy, no other",
    "haproxy-50k": "HAProxy, 50,000 others",
    "haproxy-200k": "HAProxy, 200,000 others",
    "nginx-proxy": "nginx as a proxy",
    "nginx-proxy-kept": "nginx as a proxy, kept connections",
    "nginx-file": "nginx with a file of 256 KB",
    "nginx-slow": "nginx, one request in 100 slow",
    "nginx-kept": "nginx with 16 kept connections",
    "envoy": "Envoy",
    "apache": "Apache",
    "valkey": "Valkey",
    "valkey-io-threads": "Valkey with threads",
    "redis": "Redis",
    "memcached": "Memcached",
}


def called(workload: str) -> str:
    """The name of a server in sentences and figures."""
    return _NAMES.get(workload, workload)


def place(workload: str, cores: int) -> str:
    """The name of a setting in sentences, such as "nginx on 2 cores"."""
    return f"{called(workload)} on {counted(cores)}"


def counted(number: int, thing: str = "core") -> str:
    """A number with its noun in singular or plural: "1 core", "2 cores"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
