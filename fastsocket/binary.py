"""Does LD_PRELOAD reach a program? The program's file tells, without being run (ld.so(8), execve(2), elf(5))."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from fastsocket import env
from fastsocket.elf import Elf, NotElf
from fastsocket.users import user_name

MAX_INTERPRETERS = 5  # a script's interpreter may be a script: execve(2) follows at most so many
MAX_PROGRAMS = 20  # a program may run another through env: we follow at most so many programs
SHEBANG_BYTES = 256
GLIBC_LOADER = re.compile(r"ld(-linux.*|64|-2\.\d+)?\.so(\.\d+)?")
GO_SECTIONS = (".go.buildinfo", ".note.go.buildid")
SANITIZER = re.compile(r"lib((a|hwa|l|m|t|ub)san|clang_rt\.\w*san.*)\.so.*")
# The sanitizers' own symbols, and one that their runtime names even where it is linked statically and stripped.
OF_SANITIZERS = re.compile(rb"\0(__(a|hwa|l|m|t)san_init|__sanitizer_symbolize_code)\0")
LOADER_SECONDS = 10  # how long ld.so may take to list libraries
# The calls that the library replaces, each with the symbols of which a program must import one to make the call.
CALLS = {"listen()": {"listen"}, "accept()": {"accept", "accept4"}, "epoll_ctl()": {"epoll_ctl"}}


class NoSuchProgram(Exception):
    """The program's file does not exist."""

    exit_status = 2


class NotAProgram(NoSuchProgram):
    """The program's file exists, and cannot be run."""


class Unreadable(Exception):
    """The program's file exists, and cannot be read."""

    exit_status = 3


@dataclass(frozen=True)
class Obstacle:
    """Why LD_PRELOAD does not reach a program, and what to do about it."""

    reason: str
    remedy: str


class Breakage(Obstacle):
    """Why LD_PRELOAD would reach a program and break it."""


@dataclass(frozen=True)
class Verdict:
    """Whether the library can accelerate a program, and why not."""

    program: Path
    executed: Path  # the file that the kernel runs in the end: for a script its interpreter, else the program itself
    obstacles: list[Obstacle]  # empty: the library will be loaded
    notes: list[str]  # why the library may make no difference although it is loaded

    @property
    def can_be_accelerated(self) -> bool:
        return not self.obstacles

    def __str__(self) -> str:
        return str(self.program) if self.program == self.executed else f"{self.program}, run by {self.executed},"


def find(command: str, path: str | None = None) -> Path:
    """The file that a shell would run for this command. path: the directories to search instead of those in PATH.

    Raises NoSuchProgram; NotAProgram for a file that cannot be run; Unreadable for a file that we may not look at.
    """
    return _file(command) if "/" in command else _in_path(command, os.environ.get("PATH") if path is None else path)


def _in_path(command: str, path: str | None) -> Path:
    found = shutil.which(command, path=path)
    if found:
        return _file(found)
    for directory in (os.defpath if path is None else path).split(":") if command else ():
        with suppress(FileNotFoundError, NotADirectoryError):
            _refuse(Path(directory or ".", command))
    raise NoSuchProgram(f"{command}: no such command in PATH")


def _refuse(place: Path) -> NoReturn:
    """Say why a file in PATH is no program. Raises NotAProgram, FileNotFoundError, NotADirectoryError."""
    try:
        os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:
        raise NotAProgram(f"{place}: {getattr(error, 'strerror', error)}") from error
    raise NotAProgram(f"{place}: it may not be executed")


def _file(name: str) -> Path:
    try:
        status = os.stat(name)
    except PermissionError as error:
        raise _unreadable(name, error) from error
    except FileNotFoundError as error:
        raise NoSuchProgram(f"{name}: {error.strerror}") from error
    except (OSError, ValueError) as error:  # too long, a loop, a part that is no directory, a NUL
        raise NotAProgram(f"{name}: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise NotAProgram(f"{name}: not a file")
    return Path(name)


def _unreadable(file: Path | str, error: OSError) -> Unreadable:
    if isinstance(error, PermissionError):
        return Unreadable(f"{file} may not be read by {user_name(os.geteuid())}: run this with sudo")
    return Unreadable(f"{file} cannot be read: {error.strerror}")


def check(path: Path, library: Path, arguments: Sequence[str] = (), notes: bool = True) -> Verdict:
    """Whether this library can accelerate that program when the caller runs it with these arguments.

    notes: find notes, too. For that, this machine's dynamic loader maps the program into memory, so ask for no notes on
    a stranger's program. Raises NoSuchProgram when a script's interpreter is missing, Unreadable where we may not read.
    """
    executed, lost = _followed(path, list(arguments), library)
    try:
        with _elf(library) as ours, _elf(executed) as elf:
            linking = _linking_obstacle(elf) or _machine_obstacle(elf, ours) or _libc_obstacle(elf)
            sanitizer = None if linking else _sanitizer_obstacle(elf)
            found = (*lost, linking, sanitizer, _privilege_obstacle(executed))
            return Verdict(
                path,
                executed,
                [obstacle for obstacle in found if obstacle],
                _notes(elf, executed) if notes and not linking else [],
            )
    except NotElf:
        unknown = Obstacle(
            "it is neither a whole ELF program nor a script that starts with #!",
            "start it through its interpreter, such as: sh FILE",
        )
        return Verdict(path, executed, [*lost, unknown], [])


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading. Raises Unreadable for any error while it is open.

    O_NONBLOCK is set because a read of some of the kernel's files would wait for more data.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            yield file
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def _elf(path: Path) -> Iterator[Elf]:
    with _reading(path) as file:
        yield Elf(file)


# ---- scripts


def _followed(path: Path, arguments: list[str], library: Path) -> tuple[Path, list[Obstacle]]:
    """The file that the kernel will run in the end, and the obstacle if LD_PRELOAD does not get so far.

    For a script that file is its interpreter; for env, the command that env will find.
    """
    inherited = dict(os.environ) | {"LD_PRELOAD": str(library)}
    lost: list[Obstacle] = []
    scripts: list[Path] = []
    for _ in range(MAX_PROGRAMS):
        if path.name == "env" and arguments:
            try:
                command = env.parse(arguments, inherited)
            except env.EnvError as error:
                return path, [Obstacle(f"env refuses its arguments: {error}", "see env(1)")]
            lost = [] if _names(command.variables.get("LD_PRELOAD", ""), library) else [_LOST]
            path = _behind_env(scripts[-1] if scripts else None, command)
            arguments, inherited = command.words[1:], command.variables
            continue
        words = _first_line(path)
        if words is None:
            return path, lost
        scripts.append(path)
        if len(scripts) > MAX_INTERPRETERS:
            raise NotAProgram(f"{path}: more than {MAX_INTERPRETERS} interpreters after another")
        path, arguments = _interpreter(path, words), [*words[1:], str(path), *arguments]
    raise NotAProgram(f"{path}: more than {MAX_PROGRAMS} programs after another")


_LOST = Obstacle(
    "env takes LD_PRELOAD out of its environment",
    "have env keep it: no -i, no -u LD_PRELOAD, no LD_PRELOAD=; or name the library there: "
    "LD_PRELOAD=$(fastsocket path)",
)


def _names(preload: str, library: Path) -> bool:
    return str(library) in re.split("[: ]", preload)


def _behind_env(script: Path | None, command: env.Command) -> Path:
    name = command.words[0]
    if "/" in name:
        name = os.path.join(command.directory, name)
    try:
        return find(name, command.variables.get("PATH", os.defpath))
    except NoSuchProgram as error:
        raise type(error)(f"{script}: its interpreter is missing ({error})" if script else str(error)) from error


def _first_line(path: Path) -> list[str] | None:
    """The interpreter of a script and its one argument, which may have blanks (execve(2)); None for other files."""
    with _reading(path) as file:
        first_line = file.readline(SHEBANG_BYTES) or b""
    if not first_line.startswith(b"#!"):
        return None
    return re.split(r"[ \t]+", os.fsdecode(first_line[2:].split(b"\0")[0]).strip(" \t\n"), maxsplit=1)


def _interpreter(script: Path, words: list[str]) -> Path:
    if not words[0]:
        raise NoSuchProgram(f"{script}: its first line names no interpreter")
    try:
        return _file(words[0])
    except NoSuchProgram as error:
        raise type(error)(f"{script}: its interpreter is missing ({error})") from error


# ---- obstacles


def _is_go(elf: Elf) -> bool:
    return not elf.section_names.isdisjoint(GO_SECTIONS)


def is_go(program: Path) -> bool:
    """Whether a program is written in Go. False, too, where the program cannot be read."""
    try:
        with _elf(program) as elf:
            return _is_go(elf)
    except (Unreadable, NotElf):
        return False


def _linking_obstacle(elf: Elf) -> Obstacle | None:
    if _is_go(elf):
        return Obstacle(
            "it is a Go program: Go makes system calls itself, so nothing can be preloaded before them",
            "none from outside; its authors can open a SO_REUSEPORT listener per core",
        )
    if not elf.loader:
        return Obstacle(
            "it is statically linked, so there is no dynamic loader to load the library",
            "link it dynamically (without -static), or install a package that is",
        )
    return None


def _machine_obstacle(elf: Elf, ours: Elf) -> Obstacle | None:
    def kind(file: Elf) -> str:
        return f"{file.machine}, {file.bits} bits"

    if (kind(elf), elf.little_endian) == (kind(ours), ours.little_endian):
        return None
    return Obstacle(
        f"it is built for another machine ({kind(elf)}) than the library ({kind(ours)})",
        "build the library with that machine's compiler: make CC=… build/libfsocket.so",
    )


def _libc_obstacle(elf: Elf) -> Obstacle | None:
    if GLIBC_LOADER.fullmatch(os.path.basename(elf.loader)):
        return None
    return Obstacle(
        f"its libc is not glibc: its loader is {elf.loader}", "use a build of it for glibc, such as Debian's"
    )


def _sanitizer_obstacle(elf: Elf) -> Breakage | None:
    """The obstacle if a program is built with a sanitizer.

    A sanitizer's runtime replaces libc calls itself, and ends the program if another library is loaded before it.
    """
    if any(SANITIZER.fullmatch(name) for name in elf.needed) or OF_SANITIZERS.search(elf.symbol_names):
        return Breakage(
            "it is built with a sanitizer, whose runtime must be loaded before anything else",
            "build it without -fsanitize=",
        )
    return None


def _privilege_obstacle(path: Path) -> Obstacle | None:
    """The obstacle if a program gains privileges when it is run.

    The loader then uses secure execution (AT_SECURE), and preloads no library whose name has a slash.
    """
    status = path.stat()
    dropped = "so the loader drops LD_PRELOAD (secure execution)"
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return Obstacle(
            f"it is setuid to {user_name(status.st_uid)}, {dropped}",
            f"start it as {user_name(status.st_uid)}, or without the bit: chmod u-s {path}",
        )
    if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getgid():
        return Obstacle(
            f"it is setgid to group {status.st_gid}, {dropped}",
            f"start it with that group, or without the bit: chmod g-s {path}",
        )
    if os.getuid() != 0 and _has_capabilities(path):
        return Obstacle(
            f"it has file capabilities, {dropped}",
            f"start it as root, or give it ambient ones instead (AmbientCapabilities= of systemd): setcap -r {path}",
        )
    return None


def _has_capabilities(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:  # the file has no capabilities, or its file system has no attributes
        return False


# ---- notes


def _notes(elf: Elf, path: Path) -> list[str]:
    missing = _missing_calls(elf, path)
    if not missing:
        return []
    return [
        (
            f"no {' or '.join(missing)} in it or the libraries it is linked with: only what it loads or starts later "
            "can be accelerated"
        )
    ]


def _missing_calls(elf: Elf, path: Path) -> list[str]:
    """The keys of CALLS that neither the program nor its libraries import. The cheapest file is read first."""
    missing = _without(CALLS, elf)
    for library in _libraries(path) if missing else ():
        with _elf(library) as needed:
            missing = _without(missing, needed)
        if not missing:
            break
    return list(missing)


def _without(calls: dict[str, set[str]], elf: Elf) -> dict[str, set[str]]:
    imported = elf.imports
    return {call: names for call, names in calls.items() if not names & imported}


def _libraries(path: Path) -> list[Path]:
    """The libraries that a program is linked with, except libc. Our own loader lists them without running any code."""
    with _elf(Path(sys.executable)) as ours:
        loader = ours.loader
    try:
        listed = subprocess.run(
            [loader, "--list", path.absolute()],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=LOADER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):  # this Python has no loader, or a malicious file keeps the loader busy
        return []
    found = re.findall(r"^\t\S+ => (/.+) \(0x[0-9a-f]+\)$", listed.stdout, re.MULTILINE)
    return [Path(name) for name in found if not os.path.basename(name).startswith("libc.so")]
