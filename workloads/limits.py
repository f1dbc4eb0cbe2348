"""How long servers and load generators may take, and how many connections there are: for slow machines to change."""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, fields

PREFIX = "FASTSOCKET_LAB_"


class LimitError(Exception):
    """A limit in the environment is none; the message says which one, and what it may be."""

    exit_status = 2


@dataclass(frozen=True)
class Limits:
    """Whole numbers from 1 on; the variable of each is its name in capitals behind PREFIX."""

    grace_seconds: int = 20  # that a load generator may take beyond its load; a tenth of it a request
    start_seconds: int = 10  # until a server answers
    connections_per_core: int = 100  # of wrk, by the server's cores
    rehearsed_requests: int = 10_000  # at most, of each kind, to an instance of Redis before a trial

    @property
    def answer_seconds(self) -> int:
        """That a request may wait for its answer before it counts as an error: 2, as is wrk's default."""
        return max(1, self.grace_seconds // 10)


def read(environment: Mapping[str, str] = os.environ) -> Limits:
    """Raises LimitError."""
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
    """Those that are not the default."""
    usual = asdict(Limits())
    return {name: value for name, value in asdict(limits).items() if value != usual[name]}


def write(limits: Mapping[str, int], environment: MutableMapping[str, str]) -> None:
    """So that read() finds these, and the default of all others. limits: those that changed() tells of."""
    for name, value in {**asdict(Limits()), **limits}.items():
        environment[PREFIX + name.upper()] = str(value)
