"""Programs of socket calls as data: each line of stdin is [pinned, avoided, steps]; what they saw goes to stdout.

A step is [operation, argument, …], an operation a method of Program. "listener#1" as an argument is the second of
the descriptors that listen, "fd#7" is descriptor 7. A program runs in a process of its own, whose descriptors 3 and up
are free at the start. What it saw is a list of [step with its references resolved, what the call answered], with ports
numbered in the order in which they appear.

What the kernel does behind a call's back has happened when the next call is made (see Barrier), and a call that would
block for ever answers EINTR. So a program sees the same each time, unless it asks for what is left to chance.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading

from barrier import Barrier
from children import Journal, in_child
from descriptor_calls import DescriptorCalls
from descriptors import reachable
from differences import KNOWN
from libc import FAMILIES, LOOPBACK, call, failed, family_of, name_of
from lines import Commands, say
from memory import FIRST, LAST, MISSING
from socket_calls import SocketCalls
from waiting_calls import WaitingCalls

NONBLOCK = socket.SOCK_NONBLOCK
TO_LEARN = 40  # connections by which the library knows a habit: habits.c
BARRIER = 0  # its descriptor in a program
HUNG_AFTER_SECONDS = 10
# What a program asks of what it has left open, by role; "it" is the descriptor.
ACCEPT = ["accept", "it", NONBLOCK, True]
FINAL = {
    "epoll": [["epoll_wait", "it", 0]],
    "listener": [["name", "it", "getsockname"], ACCEPT, ACCEPT, ACCEPT],
    "client": [["recv", "it", 4096, socket.MSG_DONTWAIT]],
    "accepted": [["recv", "it", 4096, socket.MSG_DONTWAIT]],
}


class Program(SocketCalls, DescriptorCalls, WaitingCalls):
    """Each public method is an operation, unless it answers a question of differences.py."""

    def __init__(self, journal: Journal, pinned: bool, avoided: list[str], barrier: Barrier):
        super().__init__(pinned)
        self._journal = journal
        self._avoided = avoided
        self._barrier = barrier

    def run(self, steps: list) -> None:
        for operation, *given in steps:
            arguments = [self._resolved(argument) for argument in given]
            answer = self._avoided_as(operation, arguments) or getattr(self, operation)(*arguments)
            self._barrier.wait()
            shown = [argument for argument in arguments if not is_program(argument)]
            self._journal.write([" ".join(map(str, [operation, *shown])), answer])

    def _avoided_as(self, operation: str, arguments: list) -> str | None:
        return next((f"avoided: {name}" for name in self._avoided if KNOWN[name](self, operation, *arguments)), None)

    def _resolved(self, argument):
        if isinstance(argument, list) and not is_program(argument):
            return [self._resolved(element) for element in argument]
        if not isinstance(argument, str) or "#" not in argument:
            return argument
        role, index = argument.split("#")
        if role == "fd":
            return int(index)
        numbers = [number for number, its in sorted(self._roles.items()) if role in (its, "any")]
        return numbers[int(index) % len(numbers)] if numbers else MISSING

    # ---- turns

    def habituate(self, listener: int) -> None:
        """Many short connections, each answered and closed in one turn. Nothing else may wait for the listener."""
        address = reachable(name_of(listener))
        for _ in range(TO_LEARN):
            client = call("socket", FAMILIES[family_of(address)], socket.SOCK_STREAM, 0)
            call("connect", client, address, len(address))
            call("send", client, b"?", 1, 0)
            self._barrier.wait()
            accepted = call("accept4", listener, None, None, NONBLOCK)
            self.answer(accepted, 1, True)
            call("close", client)

    # ---- processes and threads

    def fork(self, steps: list) -> list:
        return in_child(lambda journal: self._run_as_child(journal, steps))

    def _run_as_child(self, journal: Journal, steps: list) -> None:
        self._journal = journal
        self._began_to_watch = set()
        if not self._pinned:  # else it adopts what its parent has adopted
            self._older = {}
        self.run(steps)
        self._leave()

    def _leave(self) -> None:
        """As a worker that goes should: it takes what waits for it, because nobody else can."""
        for descriptor in self._began_to_watch:
            self._journal.write([f"accept all {descriptor}", self._accept_all(descriptor)])
        for descriptor in list(self._roles):
            self.close(descriptor)
        self._barrier.wait()

    def _accept_all(self, descriptor: int) -> int:
        number = 0
        while not failed(self.accept(descriptor, NONBLOCK, False)[0]):
            number += 1
        return number

    def thread(self, steps: list) -> None:
        """One that has ended before the next step; signals must not reach who waits for it instead."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        before = number_of_threads()
        thread = threading.Thread(target=self._run_as_thread, args=[steps])
        thread.start()
        thread.join()
        while number_of_threads() > before:  # join() returns while it still holds the descriptors
            os.sched_yield()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    def _run_as_thread(self, steps: list) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self.run(steps)

    def spawn(self, how: str) -> int:
        """Run true(1), which inherits all that is not close-on-exec.

        If its parent has passed a listener on, to another process for all that the library knows, true(1) takes the
        clones back that this listener had.
        """
        self._clones_may_be_adopted()
        if how == "subprocess":
            return subprocess.run(["true"]).returncode
        if how == "posix_spawn":
            child = os.posix_spawnp("true", ["true"], os.environ)
        elif not (child := os.fork()):
            os.execlp("true", "true")
        return os.waitpid(child, 0)[1]

    # ---- the end

    def finish(self) -> None:
        """What is left must be the same, too."""
        self.run([["flags_of_all"]])
        for role, steps in FINAL.items():
            own = [number for number, its in sorted(self._roles.items()) if its == role]
            self.run([[number if part == "it" else part for part in step] for number in own for step in steps])

    def flags_of_all(self) -> list:
        """Close-on-exec or not, of each open descriptor."""
        flags = {number: call("fcntl", number, fcntl.F_GETFD) for number in range(FIRST, MISSING)}
        return [[number, flag] for number, flag in flags.items() if not failed(flag)]


def is_program(argument) -> bool:
    return isinstance(argument, list) and all(isinstance(step, list) for step in argument)


def number_of_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def numbered(entry, seen: dict):
    """Ports and names that the kernel chose, in the order in which they appear."""
    if isinstance(entry, list):
        return [numbered(element, seen) for element in entry]
    if not isinstance(entry, dict):
        return entry
    return {key: value if key == "host" else seen.setdefault(value, len(seen)) for key, value in entry.items()}


def run(journal: Journal, cpus: list[int], command: list, barrier: Barrier) -> None:
    pinned, avoided, steps = command
    signal.signal(signal.SIGALRM, lambda *_: None)
    os.sched_setaffinity(0, cpus[:1] if pinned else cpus)
    os.dup2(barrier.fileno(), BARRIER, False)
    os.closerange(FIRST, LAST + 1)
    program = Program(journal, pinned, avoided, Barrier(BARRIER))
    program.run(steps)
    program.finish()


def main() -> None:
    """The CPUs are arguments; a program that is pinned runs on the first of them."""
    cpus = [int(argument) for argument in sys.argv[1:]]
    socket.create_server((LOOPBACK["inet"], 0)).close()  # here, so that all programs share the library's counters
    commands, barrier = Commands(0), Barrier.opened()
    while command := commands.next():
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            seen = in_child(lambda journal: run(journal, cpus, command, barrier), HUNG_AFTER_SECONDS)
            os.chdir("/")
        say(numbered(seen, {}))


if __name__ == "__main__":
    main()
