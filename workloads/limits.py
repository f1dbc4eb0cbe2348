"""Limits that slow machines may change: how long servers and load generators may take, and numbers of connections."""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, fields

PREFIX = "FASTSOCKET_LAB_"


class LimitError(Exception):
    """A limit in the environment is no valid number; the message says which limit, and what it may be."""

    exit_status = 2


@dataclass(frozen=True)
class Limits:
    """The limits: whole numbers from 1 on. The environment variable of a limit is PREFIX and its name in capitals."""

    grace_seconds: int = 20  # how long a load generator may take beyond its load; a request may take a tenth of that
    start_seconds: int = 10  # how long a server may take until it answers
    connections_per_core: int = 100  # wrk's connections for each of the server's cores
    rehearsed_requests: int = 10_000  # the most requests of each kind to an instance of Redis before a trial

    @property
    def answer_seconds(self) -> int:
        """How long a request may wait for its answer before it counts as an error: by default 2 seconds, as in wrk."""
        return max(1, self.grace_seconds // 10)


def read(environment: Mapping[str, str] = os.environ) -> Limits:
    """The limits, with those that the environment changes. Raises LimitError."""
    said = {
        field.name: environment[PREFIX + field.name.upper()]
        for field in fields(Limits)
        if PREFIX + field.name.upper() in environment
    }
    return Limits(**{name: _whole(name, value) for name, value in said.items()})


def _whole(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value)):
        raise LimitError(
            f"{PREFIX}{name.upper()}={value!r} is no whole number from 1 on: leave it out for {getattr(Limits, name)}"
        )
    return int(value)


def changed(limits: Limits) -> dict[str, int]:
    """The limits that differ from their defaults, by name."""
    usual = asdict(Limits())
    return {name: value for name, value in asdict(limits).items() if value != usual[name]}


def write(limits: Mapping[str, int], environment: MutableMapping[str, str]) -> None:
    """Set environment variables so that read() finds these limits, and the defaults of all others.

    limits: as changed() returns them.
    """
    for name, value in {**asdict(Limits()), **limits}.items():
        environment[PREFIX + name.upper()] = str(value)
