"""A load at a rate on persistent connections, for servers whose own load generators know only full speed.

An open loop: requests come at random times whatever the answers do (a Poisson process), and a latency runs from when its
request was due, so that a server that stalls is charged for all that waited (Tene: How NOT to Measure Latency). It is a
process of its own, so that its CPU time can be told from the server's.

python3 workloads/paced.py ADDRESS PORT RATE SECONDS GRACE '{"prepare": …, "prepared": …, "request": …, "answer": …}'
"""

import json
import random
import select
import socket
import sys
import time
from collections import deque

CONNECTIONS = 50
PERCENTILES = (50, 95, 99)


class Connection:
    """One request at a time; what comes back must be the answer, byte for byte."""

    def __init__(self, address: tuple[str, int], grace: float):
        self.socket = socket.create_connection(address, timeout=grace)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def ask(self, request: bytes, due: float) -> None:
        self.due, self._received = due, b""
        self.socket.sendall(request)

    def receive(self, answer: bytes) -> bool | None:
        """Whether the answer is right; None: it isn't whole yet."""
        data = self.socket.recv(65536)
        self._received += data
        if data and len(self._received) < len(answer):
            return None
        return self._received == answer


def prepare(address: tuple[str, int], grace: float, request: bytes, answer: bytes) -> None:
    """Bring in what is going to be asked for. Raises OSError when the server does not answer as it should."""
    connection = Connection(address, grace)
    with connection.socket:
        connection.ask(request, 0.0)
        while (right := connection.receive(answer)) is None:
            pass
    if not right:
        raise OSError(f"{address[0]}:{address[1]} does not store what is to be asked for")


def run(address: tuple[str, int], rate: float, seconds: float, grace: float, request: bytes, answer: bytes) -> dict:
    """The result, as workloads.load.Load has it, but without CPU time. grace: seconds for the last answers."""
    connections = [Connection(address, grace) for _ in range(CONNECTIONS)]
    waiting = {connection.socket: connection for connection in connections}
    idle, latencies, wrong = deque(connections), [], 0
    began = due = time.monotonic()
    while due < began + seconds or len(idle) < len(connections):
        now = time.monotonic()
        if now > began + seconds + grace:
            wrong += len(connections) - len(idle)
            break
        while idle and due <= now and due < began + seconds:
            idle.popleft().ask(request, due)
            due += random.expovariate(rate)
        # select() waits by the microsecond, where epoll_wait() rounds up to milliseconds.
        for ready in select.select(waiting, [], [], max(due - now, 0) if idle and due < began + seconds else 1)[0]:
            right = waiting[ready].receive(answer)
            if right is None:
                continue
            if right:
                latencies.append(time.monotonic() - waiting[ready].due)
            wrong += not right
            idle.append(waiting[ready])
    ended = time.monotonic()
    for connection in connections:
        connection.socket.close()
    return {
        "requests": len(latencies),
        "seconds": ended - began,
        "errors": {"answer": wrong},
        "latency_ms": _percentiles(sorted(latencies)),
    }


def _percentiles(latencies: list[float]) -> dict[str, float]:
    """In milliseconds; of none there are none."""
    if not latencies:
        return {}
    shown = {str(percent): 1000 * latencies[len(latencies) * percent // 100] for percent in PERCENTILES}
    return shown | {"max": 1000 * latencies[-1]}


def main() -> None:
    address, (rate, seconds, grace) = (sys.argv[1], int(sys.argv[2])), map(float, sys.argv[3:6])
    spoken = {name: text.encode() for name, text in json.loads(sys.argv[6]).items()}
    prepare(address, grace, spoken["prepare"], spoken["prepared"])
    print(json.dumps(run(address, rate, seconds, grace, spoken["request"], spoken["answer"])))


if __name__ == "__main__":
    main()
