"""Run a guest: share the host's files, start QEMU, relay the command's terminal, and find out how the guest ended."""

import os
import re
import secrets
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO

from guest import GuestError, GuestUsageError, acceleration, initramfs
from guest.acceleration import QEMU, TCG
from guest.console import Console
from guest.kernels import DEFAULT, Kernel, kernel
from guest.process import started
from guest.terminal import Terminal
from setup.packages import VIRTIOFSD
from topologies.tag import RunTag

HERE = Path(__file__).resolve().parent
VIRTIOFSDS = (VIRTIOFSD, "/usr/lib/qemu/virtiofsd")  # in a package of its own; in QEMU's package, on Debian 12
SYSTEM = ("/usr", "/etc", "/opt", "/var", "/home", "/root")  # directories that may be file systems of their own
FRESH = (Path("/tmp"), Path("/run"))  # the guest has its own of these directories, not the host's
OWN_MOUNTS = ["unshare", "--mount", "--propagation", "private"]
TRACE_SECONDS = 5  # how long QEMU may take to end by itself after a share has ended
# The variables of the environment that the guest's command gets, and those that it needs in an emulated guest.
ENVIRONMENT = re.compile("PATH|HOME|USER|LOGNAME|SHELL|EDITOR|LANG|TZ|FSOCKET|(LC|FASTSOCKET|FSOCKET|PYTEST)_.*")
EMULATED = {
    "FASTSOCKET_LAB_GRACE_SECONDS": "200",
    "FASTSOCKET_LAB_START_SECONDS": "60",
    "FASTSOCKET_LAB_CONNECTIONS_PER_CORE": "8",
    "FASTSOCKET_TEST_PATIENCE": "30",
    "PYTHONFAULTHANDLER": "1",
}


@dataclass(frozen=True)
class Machine:
    """The machine that a guest shall be."""

    kernel: str = DEFAULT
    cpus: int = 8
    threads: int = 1  # hardware threads of each core
    memory: str = "2G"
    accel: str | None = None  # None: KVM if it works
    network: bool = False  # True: a device with a queue for each CPU, one with a single queue, and a path between them
    seconds: int | None = None  # how long the command may take; None: as long as it likes
    boot_seconds: int = 180


@dataclass(frozen=True)
class Task:
    """What a guest shall run. needs: paths that it sees even below /tmp and /run. results: the folder that is kept."""

    command: list[str]  # empty: a shell
    results: Path
    needs: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return shlex.join(self.command) or "the shell"


def check(machine: Machine) -> None:
    """Raises GuestUsageError for a machine that cannot be made."""
    if machine.cpus % machine.threads:
        raise GuestUsageError(
            f"{machine.cpus} CPUs are no whole cores of {machine.threads} threads: choose --cpus so "
            "that --threads divides it"
        )
    if not re.fullmatch(r"[1-9]\d*[MG]", machine.memory):
        raise GuestUsageError(f"--memory {machine.memory} is no size: write it as 2G or 512M")
    if machine.accel not in (None, *acceleration.ARGUMENTS):
        raise GuestUsageError(f"--accel {machine.accel} is unknown: choose from {', '.join(acceleration.ARGUMENTS)}")
    if machine.network and machine.cpus < 2:
        raise GuestUsageError("--net makes devices with several queues: give the guest at least 2 CPUs")


def run(machine: Machine, task: Task) -> int:
    """Boot a guest, run the task, and return the exit status of its command. Raises GuestError when it has none."""
    check(machine)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # closing the terminal shall end us as Ctrl-C does
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGINT))
    booted = kernel(machine.kernel)
    accel, why = acceleration.choose(machine.accel, booted)
    how = "emulated: no timing in it means anything" if accel == TCG else "KVM"
    _say(f"Linux {booted.version}, {machine.cpus} CPUs, {how} ({why})")
    try:
        return _attempt(machine, task, booted, accel)
    except _BootOops as oops:
        _say(f"it failed while it booted ({oops}): once more")
        return _attempt(machine, task, booted, accel)


def _say(message: str) -> None:
    print(f"guest: {message}", file=sys.stderr, flush=True)


class _BootOops(GuestError):
    """The kernel crashed while it booted. In an emulator that happens now and then."""


def _attempt(machine: Machine, task: Task, booted: Kernel, accel: str) -> int:
    with ExitStack() as stack:
        tag = stack.enter_context(RunTag())
        terminal = stack.enter_context(Terminal(is_shell=not task.command))
        mark = f"guest-{secrets.token_hex(8)}"
        shown = visible(task, booted)
        image = tag.directory / "initramfs"
        initramfs.write(
            image,
            booted,
            {
                "orders": orders(mark, machine, task, booted, terminal, shown),
                "command": command_script(task, accel, terminal),
            },
        )
        shares = [stack.enter_context(_host_share(tag, shown)), stack.enter_context(_results_share(tag, task.results))]
        life = _Life(machine, task, Console(mark), terminal)
        with _pipes(3) as (serial, output, errors):
            command = qemu_command(machine, booted, image, accel, tag.directory, serial[1], errors[1])
            log = stack.enter_context(open(tag.directory / "qemu.log", "w+b"))
            qemu = stack.enter_context(
                started(
                    _in_namespaces(tag, machine.network, command),
                    stdin=subprocess.PIPE,
                    stdout=output[1],
                    stderr=log,
                    bufsize=0,
                    pass_fds=(serial[1], errors[1]),
                )
            )
            life.watch(
                qemu,
                shares,
                *(
                    stack.enter_context(os.fdopen(os.dup(pipe[0]), "rb", buffering=0))
                    for pipe in (serial, output, errors)
                ),
            )
        life.follow()
        return life.outcome(_last_line(log))


@contextmanager
def _pipes(number: int) -> Iterator[list[tuple[int, int]]]:
    """Make pipes, and close them at the end of the with block: by then others have copies of their descriptors."""
    pipes = [os.pipe() for _ in range(number)]
    try:
        yield pipes
    finally:
        for pipe in pipes:
            os.close(pipe[0])
            os.close(pipe[1])


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class _Life:
    """Follows a guest from QEMU's start to its end: reads all its streams, and ends it where it takes too long."""

    def __init__(self, machine: Machine, task: Task, console: Console, terminal: Terminal):
        self._machine, self._task, self._console, self._terminal = machine, task, console, terminal
        self._selector = selectors.DefaultSelector()
        self._open = 0
        self._gone = ""  # why the guest ended, when it did not end by itself
        self._deadline: float | None = time.monotonic() + machine.boot_seconds
        self._late = f"the guest did not boot within {machine.boot_seconds} s: --boot-seconds allows more"

    def watch(
        self,
        qemu: subprocess.Popen[bytes],
        shares: list[subprocess.Popen[bytes]],
        serial: FileIO,
        output: FileIO,
        errors: FileIO,
    ) -> None:
        """Watch everything that can tell about the guest: its streams, and the processes of its shares."""
        terminal = self._terminal
        for stream, heard in ((serial, self._console.add), (output, terminal.show), (errors, terminal.show_error)):
            self._selector.register(stream, selectors.EVENT_READ, partial(self._hear, stream, heard))
            self._open += 1
        for share in shares:
            ended = os.pidfd_open(share.pid)
            self._selector.register(ended, selectors.EVENT_READ, partial(self._share_ended, ended))
        if terminal.is_interactive and qemu.stdin:
            self._selector.register(sys.stdin, selectors.EVENT_READ, partial(terminal.type_into, qemu.stdin))

    def follow(self) -> None:
        """Read from the guest until QEMU has closed all its streams, or the time is up."""
        with self._selector:
            while self._open and not self._is_late():
                for key, _ in self._selector.select(self._deadline and max(0.0, self._deadline - time.monotonic())):
                    key.data()

    def _is_late(self) -> bool:
        if self._deadline is None or time.monotonic() < self._deadline:
            return False
        self._gone = self._late
        return True

    def _hear(self, stream: FileIO, heard: Callable[[bytes], None]) -> None:
        was_up = self._console.is_up
        data = stream.read(65536)
        if data:
            heard(data)
        else:
            self._selector.unregister(stream)
            self._open -= 1
        if self._console.is_up and not was_up:
            seconds = self._machine.seconds
            self._deadline = time.monotonic() + seconds if seconds else None
            self._late = f"{self._task.name} did not end within {seconds} s: --seconds allows more"

    def _share_ended(self, descriptor: int) -> None:
        """Give QEMU a moment to end after a share has ended.

        A share also ends when QEMU ends. Then the reason is elsewhere, and QEMU's streams close within that moment.
        """
        self._selector.unregister(descriptor)
        os.close(descriptor)
        self._deadline = time.monotonic() + TRACE_SECONDS
        self._late = "the guest was lost: virtiofsd, which shows it the host's files, has ended"

    def outcome(self, qemu_said: str) -> int:
        """The command's exit status. Raises GuestError when the guest never told it."""
        console = self._console
        if console.status is not None:
            return console.status
        if console.is_oops and not console.is_up:
            raise _BootOops(console.reason)
        during = f"was lost while it ran {self._task.name}" if console.is_up else "did not boot"
        reason = f"{during}: {console.reason or qemu_said or 'QEMU ended without a word'}"
        raise GuestError("\n".join([self._gone or f"the guest {reason}", *console.tail]))


def orders(mark: str, machine: Machine, task: Task, booted: Kernel, terminal: Terminal, shown: list[Path]) -> str:
    """The shell text that guest/init.sh and guest/session.sh read. Its arguments stay visible below /tmp and /run."""
    said = {
        "MARK": mark,
        "MODULES": str(booted.modules / "lib/modules") if booted.modules else "",
        "RESULTS": str(task.results),
        "NETWORK": "yes" if machine.network else "",
        "INTERACTIVE": "yes" if terminal.is_interactive else "",
        "TERMINAL": terminal.settings(),
    }
    kept = [str(path) for path in shown if any(fresh in path.parents for fresh in FRESH)]
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in said.items()) + f"set -- {shlex.join(kept)}\n"


def command_script(task: Task, accel: str, terminal: Terminal) -> str:
    """The shell script that runs the command with the environment and the directory that it would have on the host."""
    environment = {name: value for name, value in os.environ.items() if ENVIRONMENT.fullmatch(name)}
    environment = {
        **(EMULATED if accel == TCG else {}),
        **environment,
        **terminal.environment(),
        "FASTSOCKET_LAB_RESULTS": str(task.results),
    }
    shell = [environment.get("SHELL", "/bin/sh")]
    return "".join(
        [
            *(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()),
            f"cd {shlex.quote(os.getcwd())} 2>/dev/null || cd /\n",
            f"exec {shlex.join(task.command or shell)}\n",
        ]
    )


def visible(task: Task, booted: Kernel) -> list[Path]:
    """The folders that the guest needs: the task's, Python's, the kernel's modules and the current directory."""
    modules = [booted.modules / "lib/modules"] if booted.modules else []
    python = [Path(sys.prefix), Path(sys.base_prefix)]
    return sorted({path.resolve() for path in (*task.needs, *python, *modules, Path.cwd())})


def _mounts_among(paths: list[Path]) -> list[str]:
    """The mount points, other than /, of the file systems in which the paths and the parts of the system lie."""
    places = {place for path in paths for place in (path, *path.parents)} | {Path(place) for place in SYSTEM}
    return sorted(str(place) for place in places if place != Path("/") and place.is_mount())


def _host_share(tag: RunTag, shown: list[Path]) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Share the host's files with the guest. They are mounted so that not even virtiofsd could write them."""
    lower = tag.directory / "lower"
    return _share(
        tag,
        "host",
        lower,
        ["-o", "cache=always"],
        [*OWN_MOUNTS, "sh", str(HERE / "readonly.sh"), str(lower), tag.tag, *_mounts_among(shown), "--"],
    )


def _results_share(tag: RunTag, results: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return _share(tag, "results", results, ["-o", "cache=auto"], [])


@contextmanager
def _share(
    tag: RunTag, name: str, source: Path, options: list[str], prefix: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run virtiofsd for a folder, and yield its process. The socket listens first, so QEMU can connect at once."""
    virtiofsd = next(path for path in VIRTIOFSDS if os.access(path, os.X_OK))
    with socket.socket(socket.AF_UNIX) as listener, open(tag.directory / f"{name}.log", "wb") as log:
        listener.bind(str(_socket(tag.directory, name)))
        listener.listen()
        command = [
            *prefix,
            virtiofsd,
            f"--fd={listener.fileno()}",
            "-f",
            "-o",
            f"source={source}",
            "-o",
            "sandbox=chroot",
            *options,
        ]
        with started(command, stdout=log, stderr=log, pass_fds=(listener.fileno(),)) as process:
            listener.close()
            yield process


def _socket(directory: Path, name: str) -> Path:
    return directory / f"{name}.socket"


def _in_namespaces(tag: RunTag, network: bool, command: list[str]) -> list[str]:
    return [
        *OWN_MOUNTS,
        *(["--net"] if network else []),
        "sh",
        str(HERE / "qemu.sh"),
        tag.tag,
        str(tag.mount_point),
        "yes" if network else "no",
        *command,
    ]


def qemu_command(
    machine: Machine, booted: Kernel, image: Path, accel: str, directory: Path, serial: int, errors: int
) -> list[str]:
    """The command line of QEMU.

    serial: the descriptor that gets the guest's console. errors: the one that gets the command's stderr. The command's
    terminal is QEMU's own stdin and stdout.
    """
    shares = [
        argument
        for name in ("host", "results")
        for argument in (
            "-chardev",
            f"socket,id={name},path={_socket(directory, name)}",
            "-device",
            f"vhost-user-fs-pci,chardev={name},tag={name}",
        )
    ]
    return [
        shutil.which(QEMU) or QEMU,
        *acceleration.ARGUMENTS[accel],
        *acceleration.BARE,
        "-smp",
        f"{machine.cpus},sockets=1,cores={machine.cpus // machine.threads},threads={machine.threads}",
        "-m",
        machine.memory,
        "-object",
        f"memory-backend-memfd,id=memory,size={machine.memory},share=on",
        "-machine",
        "q35,memory-backend=memory",
        *shares,
        "-chardev",
        f"file,id=serial,path=/dev/fd/{serial}",
        "-serial",
        "chardev:serial",
        "-chardev",
        "stdio,id=terminal,signal=off",
        "-chardev",
        f"file,id=errors,path=/dev/fd/{errors}",
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtconsole,chardev=terminal",
        "-device",
        "virtconsole,chardev=errors",
        *(_devices(machine.cpus) if machine.network else []),
        "-kernel",
        str(booted.image),
        "-initrd",
        str(image),
        "-append",
        f"console=ttyS0 loglevel=4 panic=-1 oops=panic tsc=unstable fastsocket_lab_guest={accel}",
    ]


def _devices(queues: int) -> list[str]:
    """QEMU's arguments for two network devices: the server's has a queue for each CPU, the client's has one queue.

    More queues would not work for the client: with RSS and no XDP program, some flows of this device get no answer.
    """
    tap = "script=no,downscript=no,vhost=off"
    return [
        "-netdev",
        f"tap,id=net0,ifname=tap0,queues={queues},{tap}",
        "-device",
        f"virtio-net-pci,netdev=net0,mq=on,vectors={2 * queues + 2},rss=on,hash=on",
        "-netdev",
        f"tap,id=net1,ifname=tap1,{tap}",
        "-device",
        "virtio-net-pci,netdev=net1",
    ]
