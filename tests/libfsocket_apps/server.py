"""A server that does what its stdin tells it: the master listens, and forks workers or starts them as threads.

Each command is answered by one line. A new worker gives its answer when its epoll watches the listener; every
connection it accepts gets one line that says who accepted it.
"""

import ctypes
import errno
import json
import os
import resource
import select
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress

import filters
import messages
from guards import GUARDS, signals
from lines import Commands, say

LIBC = ctypes.CDLL(None, use_errno=True)
PAST_THE_LIBRARY = ctypes.CDLL("libc.so.6")  # its own functions, which no preloaded library stands in front of
CLONE_FILES = 0x400
SO_ATTACH_REUSEPORT_CBPF = 51
SYS_CLOSE_RANGE = 436
SYS_ACCEPT4, SYS_CLOSE, SYS_DUP3 = {"x86_64": (288, 3, 292), "aarch64": (242, 57, 24)}[os.uname().machine]
SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
SYS_SCHED_GETAFFINITY = {"x86_64": 204, "aarch64": 123}[os.uname().machine]
BACKLOG = 512
CLOSERS = {
    "closerange": lambda first: os.closerange(first, 65536),
    "one by one": lambda first: [LIBC.close(descriptor) for descriptor in range(first, 1024)],
    "close_range": lambda first: LIBC.close_range(ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0),
    "close_range refused": lambda first: LIBC.close_range(ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0x100),
    "closefrom": LIBC.closefrom,
    "by number": lambda first: LIBC.syscall(SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0),
    "unseen": lambda first: PAST_THE_LIBRARY.close_range(ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0),
}
NO_ADDRESS = struct.pack("H14x", socket.AF_UNSPEC)
ENDS = {
    "connect to no address": lambda listener: LIBC.connect(listener.fileno(), NO_ADDRESS, len(NO_ADDRESS)),
    "close by number": lambda listener: LIBC.syscall(SYS_CLOSE, listener.detach()),
    "a file in its place by number": lambda listener: LIBC.syscall(
        SYS_DUP3, os.open("/dev/null", os.O_RDONLY), listener.fileno(), 0
    ),
}
CHILD_STACK = ctypes.create_string_buffer(1 << 18)
TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def child_by_clone(task) -> int:
    end = ctypes.addressof(CHILD_STACK) + len(CHILD_STACK)
    return LIBC.clone(TASK(task), ctypes.c_void_p(end), signal.SIGCHLD, None)


def child_by(make):
    """By a call that returns in the child, too."""

    def made(task) -> int:
        if child := make():
            return child
        task()
        os._exit(0)

    return made


CHILDREN = {
    "clone()": child_by_clone,
    "clone by number": child_by(lambda: LIBC.syscall(SYS_CLONE, signal.SIGCHLD, 0, 0, 0, 0)),
    "_Fork()": child_by(LIBC._Fork),
}
ACCEPT_AND_ANSWER = """
import select, socket
listener = socket.socket(fileno=0)
while select.select([listener], [], []):
    with listener.accept()[0] as connection:
        connection.recv(1)
        connection.sendall(b'"another program"')
"""


def forbid_calls(numbers: list[int], how: str) -> None:
    """As servers do that protect themselves. A process that makes one of these calls all the same dies."""
    filters.forbid(numbers, filters.KILL_PROCESS, how)


def is_shared_memory(path: str) -> bool:
    with suppress(OSError):
        return os.readlink(path).startswith("/memfd:fsocket")
    return False


def is_socket(descriptor: int) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    return False


def put_files_over_high_descriptors() -> list[int]:
    """As an application does that gives numbers of its own choice to its files. The numbers."""
    high = [number for number in map(int, os.listdir("/proc/self/fd")) if number >= 512]
    null = os.open("/dev/null", os.O_RDONLY)
    for number in high:
        os.dup2(null, number)
    os.close(null)
    return high


def are_open(descriptors: list[int]) -> bool:
    return all(os.readlink(f"/proc/self/fd/{descriptor}") == "/dev/null" for descriptor in descriptors)


def errno_of(call, *arguments) -> str:
    """ "" when it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def own_cpus() -> list[int]:
    """Of this thread, as the kernel has them; sched_getaffinity() tells what the application set itself."""
    mask = ctypes.create_string_buffer(128)
    LIBC.syscall(SYS_SCHED_GETAFFINITY, 0, len(mask), mask)
    bits = int.from_bytes(mask.raw, sys.byteorder)
    return [cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1]


def drop_privileges(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


TELL_CPUS = [sys.executable, "-c", "import json, os; print(json.dumps(sorted(os.sched_getaffinity(0))))"]
CHANGES_WHAT_IT_WATCHES = ("listen_for_itself", "add", "mod", "pin", "go", "nest", "keep_one_name")


def by_poll(descriptors: list[int], seconds: float | None) -> list[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)]


def by_select(descriptors: list[int], seconds: float | None) -> list[int]:
    return select.select(descriptors, [], [], seconds)[0]


def by_outer_epoll(descriptors: list[int], seconds: float | None) -> list[int]:
    with select.epoll() as epoll:
        for descriptor in descriptors:
            epoll.register(descriptor, select.EPOLLIN)
        return [descriptor for descriptor, _ in epoll.poll(seconds)]


WAYS_WITHOUT_EPOLL = ("poll", "select")
WAYS_AROUND_EPOLL = ("poll for its epoll", "select for its epoll", "epoll for its epoll")
WAYS = {
    "poll": by_poll,
    "select": by_select,
    "poll for its epoll": by_poll,
    "select for its epoll": by_select,
    "epoll for its epoll": by_outer_epoll,
}


class Worker:
    """One epoll, watching the listener and the worker's own commands."""

    def __init__(
        self,
        master: "Master",
        commands: Commands,
        cpu: int | None,
        trigger: int = 0,
        held: bool = False,
        way: str = "epoll",
    ):
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        self.master, self.commands = master, commands
        self.listener, self.trigger = master.listener, trigger
        self.accepted, self.held, self.busy, self.outer, self.way = 0, held, False, None, way
        self.neglects = False
        self.epoll = select.epoll()
        self.epoll.register(commands, select.EPOLLIN)
        if way not in WAYS_WITHOUT_EPOLL:
            self.add()

    def about(self) -> dict:
        return {"pid": os.getpid(), "cpus": own_cpus(), "user": os.getuid()}

    def ready_descriptors(self, seconds: float | None = None) -> list[int]:
        """What the worker's own way to wait says is ready."""
        if self.way in WAYS_AROUND_EPOLL:
            WAYS[self.way]([self.epoll.fileno()], seconds)
            seconds = 0
        elif self.way in WAYS_WITHOUT_EPOLL:
            return WAYS[self.way]([self.commands.fileno(), self.listener.fileno()], seconds)
        return [descriptor for descriptor, _ in self.epoll.poll(seconds)]

    def look(self) -> None:
        """Wait for no time: a worker gets its clone when it waits."""
        ready = [descriptor for descriptor, _ in self.outer.poll(0)] if self.outer else self.ready_descriptors(0)
        if not self.held and any(descriptor != self.commands.fileno() for descriptor in ready):
            self.accept_all()

    def serve(self) -> None:
        self.look()
        say(self.about())
        while self.step():
            pass

    def step(self) -> bool:
        if self.outer:
            self.outer.poll()
        while self.busy and not select.select([self.commands], [], [], 0)[0]:
            if self.neglects:
                self.epoll.poll(0)
        ready = [self.commands.fileno()] if self.held or self.busy else self.ready_descriptors()
        if self.commands.fileno() in ready:
            return self.obey(self.commands.next())
        if self.accept_all() == "EMFILE":  # servers wait a little, and try again
            select.select([self.commands], [], [], 0.05)
        return True

    def obey(self, command: list | None) -> bool:
        if command:
            method, *arguments = command
            if method == "about":
                self.look()
            answer = getattr(self, method)(*arguments)
            if method in CHANGES_WHAT_IT_WATCHES:
                self.look()
            say(answer)
        return command is not None

    def accept_all(self) -> str:
        """Accept until there is nothing more, and how that was said."""
        try:
            while True:
                self.answer(self.listener.accept()[0])
        except OSError as nothing:
            if nothing.errno not in (errno.EAGAIN, errno.EMFILE):
                raise
            return errno.errorcode[nothing.errno]

    def answer(self, connection: socket.socket) -> None:
        self.accepted += 1
        options = [connection.getsockopt(*option).hex() for option in self.master.options]
        with connection:
            connection.recv(1)  # to close with something unread would reset it
            connection.sendall(json.dumps(self.about() | {"nth": self.accepted, "options": options}).encode())

    def hold(self) -> None:
        """Accept nothing until go(), only obey."""
        self.held = True

    def go(self) -> None:
        self.held = False

    def work(self) -> None:
        """All the time, without a wait, until rest(); only obey."""
        self.busy = True

    def neglect(self) -> None:
        """Come back to the loop all the time and accept nothing, until rest()."""
        self.busy = self.neglects = True

    def rest(self) -> None:
        self.busy = self.neglects = False

    def stay_away(self, how: str, seconds: float) -> None:
        """From the loop, and say so first: a long computation, or a poll() for something else."""
        say(how)
        end = time.monotonic() + seconds
        while how == "computing" and time.monotonic() < end:
            pass
        if how == "polling":
            select.poll().poll(1000 * seconds)

    def add(self) -> None:
        self.epoll.register(self.listener, select.EPOLLIN | self.trigger)

    def mod(self, events: int) -> None:
        self.epoll.modify(self.listener, events)

    def delete(self) -> None:
        self.epoll.unregister(self.listener)

    def ready(self) -> int:
        """How many events the listener gives at this moment."""
        return len([descriptor for descriptor, _ in self.epoll.poll(0) if descriptor != self.commands.fileno()])

    def counted(self) -> list[int]:
        """By counting.c, if it is preloaded: calls of accept4(), epoll_wait() and close() so far."""
        counts = (ctypes.c_int * 3)()
        LIBC.counted(counts)
        return list(counts)

    def keep_one_name(self, which: str) -> None:
        """Watch the listener by two descriptors of it, wait, and watch no longer by the older or the newer one."""
        older, self.newer = self.listener, self.listener.dup()
        self.epoll.register(self.newer, select.EPOLLIN | self.trigger)
        self.look()
        self.epoll.unregister(older if which == "newer" else self.newer)

    def listen_for_itself(self) -> None:
        """On the address of the listener that it has inherited, which it closes."""
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind(self.listener.getsockname())
        own.listen(BACKLOG)
        own.setblocking(False)
        self.delete()
        self.listener.close()
        self.listener = own
        self.add()

    def watch_again(self, times: int, trigger: int) -> None:
        """Take the listener out of the epoll, put it back and wait for no time, so often."""
        for _ in range(times):
            self.delete()
            self.epoll.register(self.listener, select.EPOLLIN | trigger)
            self.epoll.poll(0)

    def change_epoll(self) -> None:
        """To another one, which does not watch the listener. The old one is closed as it is."""
        self.epoll.close()
        self.epoll = select.epoll()
        self.epoll.register(self.commands, select.EPOLLIN)

    def use_up_descriptors(self) -> None:
        self.unused = []
        with suppress(OSError):
            while True:
                self.unused.append(os.open("/dev/null", os.O_RDONLY))

    def free_descriptors(self) -> None:
        for descriptor in self.unused:
            os.close(descriptor)

    def watch_by_many(self, number: int) -> None:
        """The listener in so many more epolls; the last of them changes its mind."""
        self.many = [select.epoll() for _ in range(number)]
        for epoll in self.many:
            epoll.register(self.listener, select.EPOLLIN)
        self.many[-1].modify(self.listener, select.EPOLLOUT)
        self.many[-1].unregister(self.listener)

    def replace_clones(self) -> int:
        """By a file, and without the library's knowledge; how many there were."""
        clones = [number for number in range(512, 1024) if is_socket(number)]
        null = os.open("/dev/null", os.O_RDONLY)
        for number in clones:
            PAST_THE_LIBRARY.dup3(null, number, 0)
        return len(clones)

    def put_files_over_high_descriptors(self) -> list[int]:
        return put_files_over_high_descriptors()

    def are_open(self, descriptors: list[int]) -> bool:
        return are_open(descriptors)

    def nest(self) -> None:
        """From now on wait with an epoll that watches the epoll."""
        self.outer = select.epoll()
        self.outer.register(self.epoll, select.EPOLLIN)

    def drop_privileges(self, user: int) -> int:
        drop_privileges(user)
        return os.getuid()

    def forbid_calls(self, numbers: list[int], how: str) -> None:
        forbid_calls(numbers, how)

    def shorten_shared_memory(self) -> list[str]:
        """What becomes of the attempt, by each descriptor of it."""
        shared = [int(name) for name in os.listdir("/proc/self/fd") if is_shared_memory(f"/proc/self/fd/{name}")]
        return [errno_of(os.ftruncate, descriptor, 0) for descriptor in shared]

    def scribble(self, pattern: str, mapping: str = "/memfd:fsocket") -> int:
        """Overwrite all shared memory but the first eight bytes; how much that was. It ends before it trips over it."""
        with open("/proc/self/maps") as maps:
            shared = [line.split()[0] for line in maps if mapping in line]
        for span in shared:
            begin, end = (int(number, 16) for number in span.split("-"))
            size = end - begin - 8
            ctypes.memmove(begin + 8, (bytes.fromhex(pattern) * (size * 2 // len(pattern) + 1))[:size], size)
        say(len(shared))
        os._exit(0)

    def cpus_seen(self) -> dict[str, list[int]]:
        """By the worker's own question, and by what it starts in each way."""
        seen = {"itself": sorted(os.sched_getaffinity(0))}
        thread = threading.Thread(target=lambda: seen.update(thread=own_cpus()))
        thread.start()
        thread.join()
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writing, json.dumps(own_cpus()).encode())
            os._exit(0)
        os.waitpid(child, 0)
        seen["fork"] = json.loads(os.read(reading, 100_000))

        def tell(*unused: object) -> int:
            os.write(writing, json.dumps(own_cpus()).encode())
            return 0

        for name, make in CHILDREN.items():
            os.waitpid(make(tell), 0)
            seen[name] = json.loads(os.read(reading, 100_000))
        seen["vfork and exec"] = json.loads(subprocess.check_output(TELL_CPUS))
        os.set_inheritable(writing, True)
        os.system(f"{shlex.join(TELL_CPUS)} >&{writing}")
        seen["system()"] = json.loads(os.read(reading, 100_000))
        spawned = os.posix_spawn(
            sys.executable, TELL_CPUS, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)]
        )
        os.waitpid(spawned, 0)
        seen["posix_spawn()"] = json.loads(os.read(reading, 100_000))
        os.close(reading)
        os.close(writing)
        return seen

    def pin(self, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})

    def take_own_descriptors(self) -> int:
        """This thread shares them with the process's other thread no longer."""
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return LIBC.unshare(CLONE_FILES)

    def end_listener(self, how: str) -> None:
        ENDS[how](self.listener)

    def accept_one_by_number(self) -> None:
        self.answer(socket.socket(fileno=LIBC.syscall(SYS_ACCEPT4, self.listener.fileno(), None, None, 0)))

    def leave_to_another_program(self) -> None:
        """Which is not under the library. The worker keeps its listener, and watches it no longer."""
        self.delete()
        self.other = subprocess.Popen(
            [sys.executable, "-c", ACCEPT_AND_ANSWER], stdin=self.listener, env={**os.environ, "LD_PRELOAD": ""}
        )

    def end_other_program(self) -> None:
        self.other.kill()
        self.other.wait()

    def block(self, blocking: bool) -> None:
        self.listener.setblocking(blocking)

    def accept_one(self) -> None:
        self.answer(self.listener.accept()[0])

    def try_to_accept(self) -> str:
        return errno_of(self.accept_one)

    def accept_elsewhere(self, cpu: int) -> None:
        """On another CPU, and before the next wait."""
        self.pin(cpu)
        self.accept_one()

    def pause(self) -> None:
        """As HAProxy does it: nobody can connect until listen() is called again."""
        self.held = True
        self.listener.shutdown(socket.SHUT_RD)

    def unpause(self) -> None:
        self.listener.listen(BACKLOG)
        self.held = False

    def change_option(self, level: int, name: int, value: str) -> None:
        self.master.change_option(level, name, value)

    def guard(self, name: str) -> None:
        self.master.guard(name)

    def listen_also(self) -> int:
        """On one more port; how many clones that makes."""
        before = self.master.open_clones()
        self.other = socket.create_server(("127.0.0.1", 0))
        return self.master.open_clones() - before

    def signals_had(self) -> int:
        return len(signals)

    def close(self) -> None:
        """As servers do: other processes hold the listener, so that close() alone would leave it in the epoll."""
        self.delete()
        self.listener.close()

    def close_all(self, closer: str, first: int) -> None:
        CLOSERS[closer](first)

    def run_program(self) -> int:
        """The subprocess module closes descriptors between vfork() and exec(), and duplicates one to 2, in memory that
        is still ours."""
        return subprocess.run(["true"], stderr=subprocess.PIPE).returncode


class Master:
    """Listens; does not accept before it is told to serve()."""

    def __init__(self, commands: Commands):
        self.commands = commands
        self.listener: socket.socket | None = None
        self.options: list[tuple[int, int, int]] = []
        self.pipes: dict[str, int] = {}
        self.children: dict[str, int] = {}
        self.threads: list[threading.Thread] = []
        self.workers: dict[str, Worker] = {}  # that are threads
        self.others: list[socket.socket] = []

    def listen(
        self,
        host: str = "127.0.0.1",
        blocking: bool = False,
        v6only: bool = True,
        port: int = 0,
        guard: str = "",
        reuseport: bool = False,
    ) -> dict:
        """guard: of GUARDS, before bind()."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        if family == socket.AF_INET6:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        if guard:
            self.guard(guard)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuseport)
        self.listener.bind((host, port))
        self.listener.listen(BACKLOG)
        self.listener.setblocking(blocking)
        return self.about()

    def guard(self, name: str) -> None:
        GUARDS[name](self.listener)

    def listen_elsewhere(self, namespace: str, port: int) -> dict:
        """With a socket of another network namespace."""
        with open("/proc/thread-self/ns/net") as own, open(namespace) as other:
            LIBC.setns(other.fileno(), 0)
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", port))
            LIBC.setns(own.fileno(), 0)
        self.listener.listen(BACKLOG)
        self.listener.setblocking(False)
        return self.about()

    def about(self) -> dict:
        return {"pid": os.getpid(), "port": self.listener.getsockname()[1], "descriptor": self.listener.fileno()}

    def block(self, blocking: bool) -> None:
        self.listener.setblocking(blocking)

    def listen_again(self, backlog: int) -> None:
        self.listener.listen(backlog)

    def accept_for_another(self) -> None:
        """Without a wait: a worker has said that there is something."""
        with self.listener.accept()[0] as connection:
            connection.recv(1)
            connection.sendall(json.dumps({"pid": os.getpid()}).encode())

    def change_root(self, path: str) -> list[str]:
        """Into a directory, and what there is."""
        os.chroot(path)
        os.chdir("/")
        return os.listdir("/")

    def try_to_listen(self) -> str:
        try:
            self.listen()
        except OSError as error:
            return errno.errorcode[error.errno]
        return ""

    def set_option(self, level: int, name: int, value: str) -> None:
        """From now on the answers tell this option of the accepted socket, too."""
        self.change_option(level, name, value)
        self.options.append((level, name, len(value) // 2))

    def change_option(self, level: int, name: int, value: str) -> None:
        self.listener.setsockopt(level, name, bytes.fromhex(value))

    def listen_as_shards(self, cpus: list[int], marked: str = "after listen") -> dict:
        """A listener for each CPU. marked: by the application itself, "before listen" or "after listen"; or not."""
        self.shards, port = [], 0
        for cpu in cpus:
            shard = socket.socket()
            shard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shard.bind(("127.0.0.1", port))
            if marked == "before listen":
                shard.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, cpu)
            shard.listen(BACKLOG)
            if marked == "after listen":
                shard.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, cpu)
            shard.setblocking(False)
            port = shard.getsockname()[1]
            self.shards.append(shard)
        self.listener = self.shards[-1]
        return self.about()

    def listen_as_chosen(self, chosen: int) -> dict:
        """Two listeners, and the application's own program in front of them: all connections are for one of them."""
        port = self.listen(reuseport=True)["port"]
        self.shards = [self.listener]
        self.listen(port=port, reuseport=True)
        self.shards.append(self.listener)
        program = ctypes.create_string_buffer(struct.pack("@HBBI", 0x06, 0, 0, chosen))
        self.listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", 1, ctypes.addressof(program))
        )
        return self.about()

    def choose_shard(self, index: int) -> None:
        """What is forked from now on watches this one."""
        self.listener = self.shards[index]

    def close_shard(self, index: int) -> None:
        """Without a word to the epoll, from which the kernel takes it."""
        self.shards[index].close()

    def cpus_of_shards(self) -> list[int]:
        return [shard.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU) for shard in self.shards]

    def get_option(self, level: int, name: int) -> int:
        return self.listener.getsockopt(level, name)

    def get_option_bytes(self, level: int, name: int, size: int) -> str:
        return self.listener.getsockopt(level, name, size).hex()

    def accept_queue(self) -> int:
        """Its length: tcpi_unacked of a listener."""
        return struct.unpack_from("I", self.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)[0]

    def rename_listener(self) -> None:
        """As inetd does: another descriptor of it, and the first one closed."""
        old, self.listener = self.listener, self.listener.dup()
        old.close()

    def move_listener(self, descriptor: int) -> None:
        """As programs that inetd starts have it: with a number below 3."""
        self.listener = socket.socket(fileno=os.dup2(self.listener.detach(), descriptor))

    def listen_also(self, port: int = 0) -> None:
        """On one more port, where nobody serves."""
        self.others.append(socket.create_server(("127.0.0.1", port)))
        self.others[-1].setblocking(False)

    def count_descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def receive(self, path: str) -> dict:
        """The listener, over a Unix socket."""
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            self.listener = socket.socket(fileno=socket.recv_fds(unix, 1, 1)[1][0])
        self.listener.setblocking(False)
        return self.about()

    def send(self, path: str) -> str:
        """The listener, and go on; what became of it."""
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            return errno_of(socket.send_fds, unix, [b"FDSTORE=1"], [self.listener.fileno()])

    def send_by_sendmmsg(self, path: str) -> int:
        """The listener, in the second of two messages; how many were sent."""
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            return messages.send(unix.fileno(), self.listener.fileno())

    def receive_by_recvmmsg(self, path: str) -> dict:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            self.listener = socket.socket(fileno=messages.receive(unix.fileno()))
        self.listener.setblocking(False)
        return self.about()

    def send_to_nobody(self) -> str:
        one, two = socket.socketpair(socket.AF_UNIX)
        two.close()
        with one:
            return errno_of(socket.send_fds, one, [b"x"], [self.listener.fileno()])

    def open_clones(self) -> int:
        return sum(int(name) >= 512 for name in os.listdir("/proc/self/fd"))

    def forbid_calls(self, numbers: list[int], how: str) -> None:
        forbid_calls(numbers, how)

    def replace_stderr(self, path: str) -> None:
        """As daemons do that close 0 to 2 and then open a file of theirs."""
        os.close(2)
        assert os.open(path, os.O_WRONLY | os.O_CREAT) == 2

    def limit_descriptors(self, limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def close_all(self, closer: str, first: int) -> None:
        CLOSERS[closer](first)
        if self.listener.fileno() >= first:
            self.listener.detach()

    def open_many(self, number: int) -> list[int]:
        return [os.open("/dev/null", os.O_RDONLY) for _ in range(number)]

    def close_one(self, descriptor: int) -> None:
        os.close(descriptor)

    def are_open(self, descriptors: list[int]) -> bool:
        return are_open(descriptors)

    def put_files_over_high_descriptors(self) -> list[int]:
        return put_files_over_high_descriptors()

    def close(self) -> None:
        self.listener.close()

    def _commands_for(self, name: str) -> Commands:
        reading, self.pipes[name] = os.pipe()
        return Commands(reading)

    def fork(
        self, name: str, cpu: int | None = None, held: bool = False, user: int | None = None, way: str = "epoll"
    ) -> None:
        """user: it is that user before it watches the listener. way: how it waits, of WAYS."""
        commands = self._commands_for(name)
        self.children[name] = os.fork()
        if self.children[name]:
            commands.close()
            return
        for pipe in self.pipes.values():
            os.close(pipe)
        if user is not None:
            drop_privileges(user)
        worker = Worker(self, commands, cpu, held=held, way=way)
        if way == "epoll in another thread":
            threading.Thread(target=lambda: (worker.pin(cpu), worker.serve(), os._exit(0))).start()
            threading.Event().wait()
        worker.serve()
        os._exit(0)

    def thread(self, name: str, cpu: int | None = None, held: bool = False) -> None:
        commands = self._commands_for(name)
        self.threads.append(threading.Thread(target=self._run_worker, args=[name, commands, cpu, held]))
        self.threads[-1].start()

    def _run_worker(self, name: str, commands: Commands, cpu: int | None, held: bool) -> None:
        self.workers[name] = Worker(self, commands, cpu, held=held)
        self.workers[name].serve()

    def unwatch_for(self, name: str) -> None:
        """Take the listener out of the epoll of a worker that is another thread."""
        self.workers[name].delete()

    def watch_for(self, name: str) -> None:
        self.workers[name].add()

    def leave_epoll_behind(self, cpu: int) -> list:
        """A thread on this CPU watches the listener, waits for no time, and ends. What was ready."""
        self.behind = select.epoll()
        ready: list = []

        def watch_once() -> None:
            os.sched_setaffinity(0, {cpu})
            self.behind.register(self.listener, select.EPOLLIN)
            ready.extend(self.behind.poll(0))

        thread = threading.Thread(target=watch_once)
        thread.start()
        thread.join()
        return ready

    def ready_in_epoll_behind(self) -> list:
        return self.behind.poll(0)

    def wait_in_thread(self, milliseconds: int) -> int:
        """For the listener. The thread's number."""
        self.waited, self.seen = select.epoll(), []
        self.waited.register(self.listener, select.EPOLLIN)
        number, started = self.waited.fileno(), threading.Event()

        def wait() -> None:
            started.set()
            self.seen.append(LIBC.epoll_wait(number, ctypes.create_string_buffer(12 * 8), 8, milliseconds))

        self.waiting = threading.Thread(target=wait)
        self.waiting.start()
        started.wait()
        return self.waiting.native_id

    def put_another_in_place_of_waited_epoll(self) -> None:
        """Another epoll, which has something to report."""
        number = self.waited.fileno()
        self.waited.close()
        self.waited = select.epoll()
        assert self.waited.fileno() == number
        self.readable = os.pipe()
        os.write(self.readable[1], b"x")
        self.waited.register(self.readable[0], select.EPOLLIN)

    def seen_in_thread(self) -> int:
        """How many events, when the wait is over."""
        self.waiting.join()
        return self.seen[0]

    def become(self, *command: str) -> None:
        """Run a program in our place, which inherits the listener, and the pipes that keep workers alive."""
        for descriptor in (self.listener.fileno(), *self.pipes.values()):
            os.set_inheritable(descriptor, True)
        os.execv(command[0], [*command, str(self.listener.fileno())])

    def fail_to_become(self, command: str) -> str:
        """Run a program that cannot be run, and go on."""
        os.set_inheritable(self.listener.fileno(), True)
        return errno_of(os.execv, command, [command])

    def serve(self, cpu: int | None = None, trigger: int = 0) -> None:
        """No workers: the master itself."""
        MasterAsWorker(self, self.commands, cpu, trigger).serve()

    def tell(self, name: str, *command) -> None:
        os.write(self.pipes[name], json.dumps(command).encode() + b"\n")

    def reap(self, name: str) -> int:
        return os.waitpid(self.children.pop(name), 0)[1]

    def finish(self) -> int:
        for pipe in self.pipes.values():
            os.close(pipe)
        for thread in self.threads:
            thread.join()
        return max((os.waitpid(child, 0)[1] for child in self.children.values()), default=0)


class MasterAsWorker(Worker):
    """Serves, and can still fork; the child answers for itself."""

    def obey(self, command: list | None) -> bool:
        if command and command[0] == "fork":
            self.master.fork(*command[1:])
            return True
        return super().obey(command)


# These are answered by the worker.
WORKERS_ANSWER = ("fork", "thread", "serve", "tell", "become")


def main() -> int:
    commands = Commands(0)
    master = Master(commands)
    if sys.argv[1:]:
        master.listener = socket.socket(fileno=int(sys.argv[1]))
        say(master.about())
    while command := commands.next():
        method, *arguments = command
        answer = getattr(master, method)(*arguments)
        if method not in WORKERS_ANSWER:
            say(answer)
    return 1 if master.finish() else 0


if __name__ == "__main__":
    sys.exit(main())
