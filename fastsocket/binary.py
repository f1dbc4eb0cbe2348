"""Does LD_PRELOAD reach a program? Read from its file, without running it (ld.so(8), execve(2), elf(5))."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwuid

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

MAX_INTERPRETERS = 5  # of scripts run by scripts: execve(2) goes no further
SHEBANG_BYTES = 256
GLIBC_LOADER = re.compile(r"ld(-linux.*|64|-2\.\d+)?\.so(\.\d+)?")
GO_SECTIONS = (".go.buildinfo", ".note.go.buildid")
NOT_ELF = (ELFError, ValueError, OSError)  # what pyelftools makes of other files
# What we stand in front of, by what a program must import to do it.
CALLS = {"listen()": {"listen"}, "accept()": {"accept", "accept4"}, "epoll_ctl()": {"epoll_ctl"}}


class NoSuchProgram(Exception):
    """There is no such file to run."""

    exit_status = 2


class Unreadable(Exception):
    """The file is there, and kept from us."""

    exit_status = 3


@dataclass(frozen=True)
class Obstacle:
    """Why LD_PRELOAD does not reach a program, and what to do about it."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """What is to be expected of a program."""

    program: Path
    executed: Path  # the same, unless it is a script: then what runs it
    obstacles: list[Obstacle]  # none: the library will be loaded
    notes: list[str]           # why it may make no difference all the same

    @property
    def can_be_accelerated(self) -> bool:
        return not self.obstacles

    def __str__(self) -> str:
        return str(self.program) if self.program == self.executed else f"{self.program}, run by {self.executed},"


def find(command: str) -> Path:
    """The file that a shell would run. Raises NoSuchProgram, and Unreadable where we may not look."""
    if "/" not in command:
        found = shutil.which(command)
        if not found:
            raise NoSuchProgram(f"{command}: no such command in PATH")
        return Path(found)
    try:
        status = os.stat(command)
    except PermissionError as error:
        raise _unreadable(command) from error
    except OSError as error:
        raise NoSuchProgram(f"{command}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise NoSuchProgram(f"{command}: not a file")
    return Path(command)


def _unreadable(file: Path | str) -> Unreadable:
    return Unreadable(f"{file} may not be read by {_user(os.geteuid())}: run this with sudo")


def check(path: Path, library: Path) -> Verdict:
    """Whether this library can accelerate that program when the caller runs it.

    Raises NoSuchProgram when a script's interpreter is missing, Unreadable where we may not look.
    """
    executed = _executed(path)
    try:
        with _elf(executed) as elf, _elf(library) as ours:
            linking = _linking_obstacle(elf) or _machine_obstacle(elf, ours) or _libc_obstacle(elf)
            obstacles = [obstacle for obstacle in (linking, _privilege_obstacle(executed)) if obstacle]
            return Verdict(path, executed, obstacles, [] if linking else _notes(elf, executed))
    except NOT_ELF:
        unknown = Obstacle("it is neither a whole ELF program nor a script that starts with #!",
                           "start it through its interpreter, such as: sh FILE")
        return Verdict(path, executed, [unknown], [])


@contextmanager
def _reading(path: Path):
    try:
        with path.open("rb") as file:
            yield file
    except PermissionError as error:
        raise _unreadable(path) from error


@contextmanager
def _elf(path: Path) -> Iterator[ELFFile]:
    with _reading(path) as file:
        yield ELFFile(file)


# ---- scripts


def _executed(path: Path) -> Path:
    """What the kernel will run in the end: a script's interpreter, and behind env what env will find."""
    for _ in range(MAX_INTERPRETERS + 1):
        with _reading(path) as file:
            first_line = file.readline(SHEBANG_BYTES)
        if not first_line.startswith(b"#!"):
            return path
        path = _interpreter(path, os.fsdecode(first_line[2:]).split())
    raise NoSuchProgram(f"{path}: more than {MAX_INTERPRETERS} interpreters after another")


def _interpreter(script: Path, words: list[str]) -> Path:
    if not words:
        raise NoSuchProgram(f"{script}: its first line names no interpreter")
    name, *arguments = words
    if os.path.basename(name) == "env":
        name = next((word for word in arguments if not word.startswith("-") and "=" not in word), name)
    try:
        return find(name)
    except NoSuchProgram as error:
        raise NoSuchProgram(f"{script}: its interpreter is missing ({error})") from error


# ---- obstacles


def _linking_obstacle(elf: ELFFile) -> Obstacle | None:
    if any(elf.get_section_by_name(name) for name in GO_SECTIONS):
        return Obstacle("it is a Go program: Go makes system calls itself, so nothing can be preloaded before them",
                        "none from outside; its authors can open a SO_REUSEPORT listener per core")
    if not _loader(elf):
        return Obstacle("it is statically linked, so there is no dynamic loader to load the library",
                        "link it dynamically (without -static), or install a package that is")
    return None


def _machine_obstacle(elf: ELFFile, ours: ELFFile) -> Obstacle | None:
    def kind(file: ELFFile) -> str:
        return f"{str(file['e_machine']).removeprefix('EM_')}, {file.elfclass} bits"

    if (kind(elf), elf.little_endian) == (kind(ours), ours.little_endian):
        return None
    return Obstacle(f"it is built for another machine ({kind(elf)}) than the library ({kind(ours)})",
                    "build the library with that machine's compiler: make CC=… build/libfsocket.so")


def _libc_obstacle(elf: ELFFile) -> Obstacle | None:
    loader = _loader(elf)
    if GLIBC_LOADER.fullmatch(os.path.basename(loader)):
        return None
    return Obstacle(f"its libc is not glibc: its loader is {loader}", "use a build of it for glibc, such as Debian's")


def _privilege_obstacle(path: Path) -> Obstacle | None:
    """Secure execution (AT_SECURE): a program that gains privileges gets no library whose name has a slash."""
    status = path.stat()
    dropped = "so the loader drops LD_PRELOAD (secure execution)"
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return Obstacle(f"it is setuid to {_user(status.st_uid)}, {dropped}",
                        f"start it as {_user(status.st_uid)}, or without the bit: chmod u-s {path}")
    if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getgid():
        return Obstacle(f"it is setgid to group {status.st_gid}, {dropped}",
                        f"start it with that group, or without the bit: chmod g-s {path}")
    if os.getuid() != 0 and _has_capabilities(path):
        return Obstacle(f"it has file capabilities, {dropped}",
                        f"start it as root, or give it ambient ones instead (AmbientCapabilities= of systemd): "
                        f"setcap -r {path}")
    return None


def _user(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _has_capabilities(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:  # it has none, or this file system has no attributes
        return False


def _loader(elf: ELFFile) -> str:
    """The dynamic loader that the program asks for; empty: it is static."""
    return next((segment.get_interp_name() for segment in elf.iter_segments("PT_INTERP")), "")


# ---- notes


def _notes(elf: ELFFile, path: Path) -> list[str]:
    missing = _missing_calls(elf, path)
    if not missing:
        return []
    return [f"no {' or '.join(missing)} in it or the libraries it is linked with: only what it loads or starts later "
            "can be accelerated"]


def _missing_calls(elf: ELFFile, path: Path) -> list[str]:
    """Which of CALLS are imported nowhere; cheapest place first."""
    missing = _without(CALLS, elf)
    for library in _libraries(path) if missing else ():
        with _elf(library) as needed:
            missing = _without(missing, needed)
        if not missing:
            break
    return list(missing)


def _without(calls: dict[str, set[str]], elf: ELFFile) -> dict[str, set[str]]:
    imported = set(_imports(elf))
    return {call: names for call, names in calls.items() if not names & imported}


def _imports(elf: ELFFile) -> Iterator[str]:
    symbols = elf.get_section_by_name(".dynsym")
    for symbol in symbols.iter_symbols() if symbols else ():
        if symbol["st_shndx"] == "SHN_UNDEF":
            yield symbol.name


def _libraries(path: Path) -> list[Path]:
    """The libraries that a program is linked with, but libc, as our own loader finds them: none of their code runs."""
    with _elf(Path(sys.executable)) as ours:
        loader = _loader(ours)
    listed = subprocess.run([loader, "--list", path.absolute()], capture_output=True, text=True, errors="replace")
    found = re.findall(r"^\t\S+ => (/.+) \(0x[0-9a-f]+\)$", listed.stdout, re.MULTILINE)
    return [Path(name) for name in found if not os.path.basename(name).startswith("libc.so")]
