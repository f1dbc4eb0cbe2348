"""Short connections without a pause, from each of several CPUs, and what became of every one of them.

A connection connects, sends a request, reads until the server closes, and compares the answer. It ends as one of
OUTCOMES. Over loopback the CPU that sends a SYN handles it, so each CPU has a generator of its own, pinned there: this
file, run as a program.
"""

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.harness.patience import patient

OUTCOMES = ("ok", "refused", "reset", "unanswered", "wrong", "hung")
HUNG_SECONDS = patient(5)
LATE_SECONDS = patient(1)
CONCURRENCY = 16
ROOT = Path(__file__).resolve().parent.parent.parent


class Connection:
    """One of them. ``advance`` returns its outcome, or None while it is under way."""

    def __init__(self, port: int, request: bytes, answer: re.Pattern):
        self._request, self._expected, self._received = request, answer, b""
        self.began = time.monotonic()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        with suppress(BlockingIOError):  # it is under way
            self.socket.connect(("127.0.0.1", port))

    def advance(self) -> str | None:
        try:
            return self._send() if self._request else self._receive()
        except ConnectionRefusedError:
            return "refused"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"

    def _send(self) -> None:
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))  # of the class that fits the number
        self._request = self._request[self.socket.send(self._request) :]

    def _receive(self) -> str | None:
        data = self.socket.recv(4096)
        self._received += data
        if data:
            return None
        if not self._received:
            return "unanswered"
        return "ok" if self._expected.fullmatch(self._received) else "wrong"

    @property
    def interest(self) -> int:
        return select.EPOLLOUT if self._request else select.EPOLLIN


class Generator:
    """Keeps CONCURRENCY connections under way: until told to end, or until so many have been made."""

    def __init__(self, port: int, request: bytes, answer: re.Pattern, number: int | None):
        self._new = lambda: Connection(port, request, answer)
        self._left = number
        self._underway: dict[int, Connection] = {}  # the oldest comes first
        self._epoll = select.epoll()
        self.counts: Counter = Counter()

    def run(self, commands) -> None:
        """Answer each line of ``commands`` with the counts so far; its end ends the load."""
        self._epoll.register(commands, select.EPOLLIN)
        while self._refill():
            for descriptor, _ in self._epoll.poll(HUNG_SECONDS / 50):
                if descriptor != commands.fileno():
                    self._advance(descriptor)
                elif commands.readline():
                    self.say()
                else:
                    self._left = 0
                    self._epoll.unregister(commands)
            self._give_up_on_the_hung()
        self.say()

    def say(self) -> None:
        print(json.dumps(self.counts), flush=True)

    def _refill(self) -> int:
        while self._left != 0 and len(self._underway) < CONCURRENCY:
            connection = self._new()
            self._left = self._left and self._left - 1
            self._underway[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket, connection.interest)
        return len(self._underway)

    def _advance(self, descriptor: int) -> None:
        connection = self._underway[descriptor]
        before = connection.interest
        outcome = connection.advance()
        if outcome:
            self._finish(descriptor, outcome)
        elif connection.interest != before:
            self._epoll.modify(descriptor, connection.interest)

    def _finish(self, descriptor: int, outcome: str) -> None:
        connection = self._underway.pop(descriptor)
        connection.socket.close()
        self.counts[outcome] += 1
        self.counts["late"] += time.monotonic() - connection.began > LATE_SECONDS

    def _give_up_on_the_hung(self) -> None:
        long_ago = time.monotonic() - HUNG_SECONDS
        for descriptor in [number for number, one in self._underway.items() if one.began < long_ago]:
            self._finish(descriptor, "hung")


class Load:
    """A generator on each of these CPUs while the context lasts; ``counts`` by CPU is final after it."""

    def __init__(self, port: int, request: bytes, answer: re.Pattern, cpus: Iterable[int], number: int | None = None):
        self._arguments = [str(port), request.hex(), answer.pattern.hex(), str(number or "")]
        self._cpus = list(cpus)
        self.counts: dict[int, Counter] = {}

    def __enter__(self):
        self._generators = {
            cpu: subprocess.Popen(
                [sys.executable, "-m", "tests.harness.load", str(cpu), *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for cpu in self._cpus
        }
        return self

    def ask(self) -> dict[int, Counter]:
        """The counts so far."""
        for generator in self._generators.values():
            generator.stdin.write("\n")
            generator.stdin.flush()
        return {cpu: Counter(json.loads(generator.stdout.readline())) for cpu, generator in self._generators.items()}

    def wait(self) -> None:
        """Of a load with a number: until it has made so many."""
        for generator in self._generators.values():
            generator.wait()

    def __exit__(self, *exception):
        for cpu, generator in self._generators.items():
            self.counts[cpu] = Counter(json.loads(generator.communicate()[0].splitlines()[-1]))

    def total(self) -> Counter:
        return sum(self.counts.values(), Counter())


def main(cpu: str, port: str, request: str, answer: str, number: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    generator = Generator(
        int(port), bytes.fromhex(request), re.compile(bytes.fromhex(answer)), int(number) if number else None
    )
    generator.run(os.fdopen(0, buffering=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
