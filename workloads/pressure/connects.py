"""Time connect() calls to one destination, as a proxy makes them: each call returns once its SYN is sent.

    python3 connects.py ADDRESS PORT CPUS

The program prints percentiles in µs as JSON. It imports the standard library only. Python itself takes about 1 µs of a
call.
"""

import json
import os
import socket
import statistics
import struct
import sys
import time

SECONDS = 0.5  # how long to time calls, at most
CALLS, FEWEST = 1000, 20  # the most calls; the fewest calls, however long they take
ON_EACH_CPU = 10  # after so many calls the next CPU has its turn
NO_LINGER = struct.pack("=ii", 1, 0)  # close() sends a reset then, which leaves no TIME_WAIT


def call(to: tuple[str, int]) -> float:
    """The time of one connect() in µs. The connection is closed at once."""
    with socket.socket() as one:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        began = time.perf_counter_ns()
        one.connect_ex(to)
        return (time.perf_counter_ns() - began) / 1000


def timed(to: tuple[str, int], cpus: list[int]) -> list[float]:
    calls: list[float] = []
    deadline = time.monotonic() + SECONDS
    while len(calls) < FEWEST or (len(calls) < CALLS and time.monotonic() < deadline):
        if len(calls) % ON_EACH_CPU == 0:
            os.sched_setaffinity(0, {cpus[len(calls) // ON_EACH_CPU % len(cpus)]})
        calls.append(call(to))
    return calls


def main(address: str, port: str, cpus: str) -> None:
    tenths = statistics.quantiles(timed((address, int(port)), [*map(int, cpus.split(","))]), n=10)
    print(json.dumps({"50": tenths[4], "90": tenths[8]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
