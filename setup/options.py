"""Typer's options as the fields of a dataclass, for verbs that have many."""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import TypeVar

Options = TypeVar("Options")


def taking(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """A verb that is called with each field of a dataclass as a parameter, as typer calls it, and gets them as one."""

    def decorate(verb: Callable[[Options], None]) -> Callable[..., None]:
        def command(**fields: object) -> None:
            verb(options(**fields))

        update_wrapper(command, verb)
        command.__annotations__ = options.__annotations__
        command.__signature__ = inspect.signature(options)  # type: ignore[attr-defined]
        return command

    return decorate
