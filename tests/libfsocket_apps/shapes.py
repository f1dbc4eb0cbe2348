"""Servers of unusual shapes. The first command names one, which says its port. Further commands tell it what to do.

Every connection is answered with a line that says who accepted it.
"""

import os
import select
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from lines import Commands, say

CPUS = sorted(os.sched_getaffinity(0))[:2]
PASSED_ON = 20  # the number under which a program gets the listener of the program before


def listening(*options: int, address: tuple[str, int] = ("127.0.0.1", 0)) -> socket.socket:
    listener = socket.socket()
    for option in (socket.SO_REUSEADDR, *options):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind(address)
    listener.listen()
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def watching(listener: socket.socket, events: int = select.EPOLLIN) -> select.epoll:
    epoll = select.epoll()
    epoll.register(listener, events)
    return epoll


def accept_all(listener: socket.socket, name: str) -> None:
    while True:
        try:
            connection = listener.accept()[0]
        except BlockingIOError:
            return
        with connection:
            connection.recv(1)
            connection.sendall(name.encode())


def serve(listener: socket.socket, name: str) -> None:
    epoll = watching(listener)
    while True:
        for _ in epoll.poll():
            accept_all(listener, name)


def serve_blocking(listener: socket.socket, name: str) -> None:
    listener.setblocking(True)
    while True:
        with listener.accept()[0] as connection:
            connection.recv(1)
            connection.sendall(name.encode())


def start(target: Callable, *arguments) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


class OneEpoll:
    """Two threads with a CPU each share an edge-triggered epoll: one waits, the other one accepts. They take turns."""

    def __init__(self) -> None:
        self._listener = listening()
        self._epoll = watching(self._listener, select.EPOLLIN | select.EPOLLET)
        self._waits = 0
        self._changed = threading.Condition()
        self._tasks = 0
        for me in range(2):
            start(self._run, me)
        say(port_of(self._listener))

    def _run(self, me: int) -> None:
        os.sched_setaffinity(0, {CPUS[me]})
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waits == me or self._tasks)
                waits, accepts = self._waits == me, self._waits != me and self._tasks
                self._tasks -= bool(accepts)
            if accepts:
                accept_all(self._listener, str(me))
            elif waits and self._epoll.poll(0.1):
                with self._changed:
                    self._tasks += 1
                    self._changed.notify_all()

    def turn(self) -> None:
        with self._changed:
            self._waits = 1 - self._waits
            self._changed.notify_all()
        say("turned")


class BlocksLater:
    """The first client is waited for by epoll. From then on a thread blocks in accept()."""

    def __init__(self) -> None:
        os.sched_setaffinity(0, CPUS[:1])
        listener = listening()
        start(self._run, listener)
        say(port_of(listener))

    def _run(self, listener: socket.socket) -> None:
        with watching(listener) as epoll:
            epoll.poll()
            epoll.unregister(listener)
        serve_blocking(listener, "late")


class StartsItsService:
    """The first client is waited for by epoll. It is left to another program, which blocks in accept()."""

    def __init__(self) -> None:
        os.sched_setaffinity(0, CPUS[:1])
        self._listener = listening()
        start(self._run)
        say(port_of(self._listener))

    def _run(self) -> None:
        with watching(self._listener) as epoll:
            epoll.poll()
            epoll.unregister(self._listener)
            if os.fork() == 0:
                os.dup2(self._listener.fileno(), PASSED_ON)
                os.execv(sys.executable, [sys.executable, __file__, "serve_blocking"])


class HasAClone:
    """A process with one CPU, which waits for a listener by epoll and so has a clone of it."""

    def __init__(self, *options: int) -> None:
        os.sched_setaffinity(0, CPUS[:1])
        self._listener = listening(*options)
        self._epoll = watching(self._listener)
        self._epoll.poll(0)
        say(port_of(self._listener))


class BecomesAnother(HasAClone):
    """Serves by epoll until it is told to become another program, which gets the listener under another number."""

    def __init__(self, successor: str) -> None:
        self._successor = successor
        super().__init__()

    def accept(self, number: int) -> None:
        for _ in range(number):
            self._epoll.poll()
            accept_all(self._listener, "old")
        say("accepted")

    def become(self) -> None:
        os.dup2(self._listener.fileno(), PASSED_ON)
        say("becomes")
        os.execv(sys.executable, [sys.executable, __file__, self._successor])


class StartsAnotherAndCloses(HasAClone):
    """Serves by epoll. It starts another program, which gets the listener, and closes its own at once."""

    PROGRAM = [sys.executable, __file__, "serve"]
    IN_BACKGROUND = f"{{ {shlex.join(PROGRAM)} <&3 & }} 3<&0"  # sh would give it /dev/null

    def start(self, how: str) -> None:
        os.dup2(self._listener.fileno(), PASSED_ON)
        if how == "spawn":
            os.posix_spawn(self.PROGRAM[0], self.PROGRAM, os.environ)
        elif how == "vfork":
            subprocess.Popen(self.PROGRAM, close_fds=False)
        elif os.fork() == 0:
            program = self.PROGRAM if how == "fork" else ["/bin/sh", "-c", self.IN_BACKGROUND]
            os.execv(program[0], program)
        self._epoll.close()
        self._listener.close()
        os.close(PASSED_ON)
        say("closed")


class StartsWithoutEnvironment(HasAClone):
    """Starts programs that get its listener, but no variable of its environment."""

    TELL = [sys.executable, "-c", "import os; print('LD_PRELOAD' in os.environ, flush=True)"]

    def start(self, how: str) -> None:
        """Passed on as another descriptor, or as it is."""
        reading, writing = os.pipe()
        if how == "duplicate":
            if os.fork() == 0:
                os.dup2(self._listener.fileno(), PASSED_ON)
                os.dup2(writing, 1)
                os.execve(self.TELL[0], self.TELL, {})
        else:
            os.set_inheritable(self._listener.fileno(), True)
            os.posix_spawn(self.TELL[0], self.TELL, {}, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
            os.set_inheritable(self._listener.fileno(), False)
        os.close(writing)
        with open(reading) as said:
            say(said.read().strip())


class SecondShardComesLate(HasAClone):
    """A listener with SO_REUSEPORT is not served for a while. Another one is opened on its address meanwhile."""

    def __init__(self) -> None:
        super().__init__(socket.SO_REUSEPORT)

    def open(self) -> None:
        start(serve, listening(socket.SO_REUSEPORT, address=self._listener.getsockname()), "second")
        say("open")

    def go_on(self) -> None:
        start(serve, self._listener, "first")
        say("goes on")


class OneIsBusy:
    """Two workers share a CPU. When they are told, the first one that wakes is busy with something else for good."""

    def __init__(self) -> None:
        os.sched_setaffinity(0, CPUS[:1])
        listener = listening()
        taken, self._busy = os.pipe()
        os.set_blocking(taken, False)
        self._children = [self._fork(listener, taken, name) for name in "ab"]
        say(port_of(listener))

    def _fork(self, listener: socket.socket, taken: int, name: str) -> int:
        if child := os.fork():
            return child
        epoll = watching(listener)
        while True:
            for _ in epoll.poll():
                try:
                    os.read(taken, 1)
                except BlockingIOError:
                    accept_all(listener, name)
                else:
                    threading.Event().wait()

    def be_busy(self) -> None:
        os.write(self._busy, b"b")
        say("will be")

    def end(self) -> None:
        for child in self._children:
            os.kill(child, 9)
            os.waitpid(child, 0)


class EndsServing:
    """Two threads serve, each pinned by the library. Each closes its epoll, and one of them the listener."""

    def __init__(self) -> None:
        os.sched_setaffinity(0, CPUS)  # with a CPU more than threads the library would not pin them
        self._listener = listening()
        self._ends, self._step = threading.Event(), threading.Barrier(3)
        self._masks: list[list[int]] = [[], []]
        for me in range(2):
            start(self._run, me)
        say(port_of(self._listener))

    def _run(self, me: int) -> None:
        epoll = watching(self._listener)
        while not self._ends.is_set():
            epoll.poll(0.1)
        epoll.close()
        self._step.wait()
        if me == 0:
            self._listener.close()
        self._step.wait()
        self._masks[me] = allowed()
        self._step.wait()

    def close(self) -> None:
        self._ends.set()
        for _ in range(3):
            self._step.wait()
        say(self._masks)


class ManyListeners:
    """More listeners in an epoll than an event loop usually has. Each has a client of each CPU at the same time."""

    NUMBER = 20

    def __init__(self) -> None:
        os.sched_setaffinity(0, CPUS[:1])
        self._listeners = [listening() for _ in range(self.NUMBER)]
        self._epoll = select.epoll()
        for listener in self._listeners:
            self._epoll.register(listener, select.EPOLLIN)
        self._epoll.poll(0)
        say([port_of(listener) for listener in self._listeners])

    def reported(self) -> None:
        """How many descriptors one call reports, and how many of these are different."""
        found = [descriptor for descriptor, _ in self._epoll.poll(maxevents=4 * self.NUMBER)]
        say([len(found), len({*found})])


class IsConfined:
    """A thread serves, pinned by the library. Then it is confined to the CPUs other than that one."""

    def __init__(self) -> None:
        self._listener = listening()
        self._epoll = watching(self._listener)
        say(port_of(self._listener))

    def look(self) -> None:
        """Wait for so long that the library looks several times after its listener."""
        for _ in range(4):
            self._epoll.poll(0.3)

    def confine(self) -> None:
        self.look()
        others = sorted(os.sched_getaffinity(0) - {*allowed()})
        os.sched_setaffinity(0, others)
        self.look()
        say([others, allowed(), sorted(os.sched_getaffinity(0))])


def allowed() -> list[int]:
    """As the kernel says, not libc."""
    lines = open(f"/proc/self/task/{threading.get_native_id()}/status").read().splitlines()
    (said,) = (line.split()[1] for line in lines if line.startswith("Cpus_allowed_list"))
    ends = [[*map(int, part.split("-"))] for part in said.split(",")]
    return [cpu for end in ends for cpu in range(end[0], end[-1] + 1)]


SUCCESSORS = {"serve": serve, "serve_blocking": serve_blocking}
SHAPES = {
    shape.__name__: shape
    for shape in (
        OneEpoll, BlocksLater, StartsItsService, BecomesAnother, StartsAnotherAndCloses, StartsWithoutEnvironment,
        SecondShardComesLate, OneIsBusy, EndsServing, ManyListeners, IsConfined,
    )
}  # fmt: skip

if len(sys.argv) > 1:
    received = socket.socket(fileno=PASSED_ON)
    received.setblocking(False)
    start(SUCCESSORS[sys.argv[1]], received, "new")
    os.read(0, 1)
    os._exit(0)
commands = Commands(0)
name, *arguments = commands.next() or ["OneEpoll"]
shape = SHAPES[name](*arguments)
while command := commands.next():
    method, *arguments = command
    getattr(shape, method)(*arguments)
if hasattr(shape, "end"):
    shape.end()
os._exit(0)
