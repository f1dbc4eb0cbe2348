"""Start a command with libfsocket.so preloaded: prepare its environment, and exec it."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fastsocket.binary import Breakage, NoSuchProgram, NotAProgram, Unreadable, check, find

MAX_ONLY_PORTS = 16  # libfsocket/settings.h
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the exit statuses that shells and env(1) use


class LaunchError(Exception):
    """The command cannot be started, or not in the way that the options ask for; the message says why."""

    def __init__(self, message: str, exit_status: int = 3):
        super().__init__(message)
        self.exit_status = exit_status


# The parts of the library that can be switched on and off, by their names in Wishes and in the environment.
PARTS = ("listen_table", "balance", "fast_epoll", "flow_deliver", "answer_with_fin", "delayed_ack", "defer_accept")


@dataclass(frozen=True)
class Wishes:
    """What the options ask of the library. None: the option was not given, so a variable in the environment stays."""

    listen_table: bool | None = None
    balance: bool | None = None
    fast_epoll: bool | None = None
    flow_deliver: bool | None = None
    answer_with_fin: bool | None = None
    delayed_ack: bool | None = None
    defer_accept: bool | None = None
    only: tuple[int, ...] = ()
    pin: bool | None = None
    strict: bool = False
    verbose: bool = False

    def variables(self) -> dict[str, str]:
        """The environment variables that tell the library these wishes."""
        asked = {
            f"FSOCKET_{part.upper()}": _switch(wish) for part in PARTS if (wish := getattr(self, part)) is not None
        }
        if self.only:
            asked["FSOCKET_ONLY"] = ",".join(map(str, self.only))
        if self.pin is not None:
            asked["FSOCKET_PIN"] = "always" if self.pin else "never"
        if self.strict:
            asked["FSOCKET_STRICT"] = "1"
        if self.verbose:
            asked["FSOCKET_VERBOSE"] = "1"
        return asked


def _switch(on: bool) -> str:
    return "on" if on else "off"


def inherited_environment() -> dict[str, str]:
    """The environment with which this process was started. Python may have added LC_CTYPE to os.environ (PEP 538)."""
    assignments = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    return dict(assignment.split("=", 1) for assignment in assignments if "=" in assignment)


def environment(inherited: Mapping[str, str], library: Path, wishes: Wishes) -> dict[str, str]:
    """The environment of the command. It preloads the library first, and then the libraries that it named before.

    Raises LaunchError when LD_PRELOAD cannot name the library.
    """
    return dict(inherited) | {"LD_PRELOAD": _preload(library, inherited.get("LD_PRELOAD", ""))} | wishes.variables()


def _preload(library: Path, inherited: str) -> str:
    """The value of LD_PRELOAD: the library, and then the inherited ones. Raises LaunchError.

    ld.so(8) separates names by colons and spaces, and has no way to quote either.
    """
    if re.search(r"[: ]", str(library)):
        raise LaunchError(f"LD_PRELOAD cannot name {library}: move it where no directory has a space or a colon")
    others = [name for name in re.split(r"[: ]", inherited) if name and name != str(library)]
    return ":".join([str(library), *others])


def without_library(inherited: Mapping[str, str], library: Path) -> dict[str, str]:
    """The environment of a command that the library would break."""
    preloaded = [name for name in re.split(r"[: ]", inherited.get("LD_PRELOAD", "")) if name and name != str(library)]
    others = {name: value for name, value in inherited.items() if name != "LD_PRELOAD"}
    return others | ({"LD_PRELOAD": ":".join(preloaded)} if preloaded else {})


@dataclass(frozen=True)
class Hindrance:
    """Why the library will not accelerate a command, and what to do. breaks: the library would break the command."""

    words: str
    breaks: bool = False

    def __str__(self) -> str:
        return self.words


def hindrance(command: Sequence[str], library: Path) -> Hindrance | None:
    """Why the library will not accelerate a command; None: it will, if the command listens.

    Raises LaunchError when there is no such command.
    """
    try:
        verdict = check(find(command[0]), library, command[1:])
    except NotAProgram as error:
        raise LaunchError(str(error), NOT_EXECUTABLE) from error
    except NoSuchProgram as error:
        raise LaunchError(str(error), NOT_FOUND) from error
    except Unreadable as error:
        return Hindrance(str(error))
    if verdict.can_be_accelerated:
        return None
    return Hindrance(
        "; ".join(f"{str(verdict).rstrip(',')}: {found.reason} -> {found.remedy}" for found in verdict.obstacles),
        any(isinstance(found, Breakage) for found in verdict.obstacles),
    )


def execute(command: list[str], variables: dict[str, str]) -> NoReturn:
    """Replace this process by the command. Raises LaunchError when the kernel refuses."""
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, variables)
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise LaunchError(f"{command[0]}: {error.strerror}", status) from error
