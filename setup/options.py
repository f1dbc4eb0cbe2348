"""Give typer's options as the fields of a dataclass, for subcommands that have many."""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import TypeVar

Options = TypeVar("Options")


def taking(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """A decorator for subcommands: typer sees each field of a dataclass as an option; the function gets one object."""

    def decorate(verb: Callable[[Options], None]) -> Callable[..., None]:
        def command(**fields: object) -> None:
            verb(options(**fields))

        update_wrapper(command, verb)
        command.__annotations__ = options.__annotations__
        command.__signature__ = inspect.signature(options)  # type: ignore[attr-defined]
        return command

    return decorate
