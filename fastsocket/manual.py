"""The manual page and the shell completions, made from the command's --help: python3 -m fastsocket.manual man|bash|zsh.

The page is in man(7)'s language. The completions call the command itself at each Tab.
"""

import sys
import tomllib
from collections.abc import Iterator
from typing import Any

from typer.completion import get_completion_script  # type: ignore[attr-defined]
from typer.main import get_command

from fastsocket.build import HERE
from fastsocket.cli import COMPLETE, app

NAME = "fastsocket"
PROJECT = HERE.parent / "pyproject.toml"
ENDS = """\
.SH EXIT STATUS
0: done. 1: the question that was asked has the answer no. 2: wrong usage. 3: this machine cannot do it, and a line on
stderr says why. Of
.BR "fastsocket run" ,
the status is the server's own.
.SH ENVIRONMENT
The FSOCKET variables of the library hold under
.BR "fastsocket run" ,
too; its options go before them. With FSOCKET=off the library does nothing.
.SH SEE ALSO
.BR ld.so (8),
.BR epoll (7),
.BR ethtool (8)
"""


def manual() -> str:
    """The text of the manual page fastsocket(1)."""
    command = get_command(app)
    top = _context(command, NAME)
    verbs = {name: _context(verb, name, top) for name, verb in command.commands.items()}  # type: ignore[attr-defined]
    summary, description = _parts(command.help or "")
    version = tomllib.loads(PROJECT.read_text())["project"]["version"]
    lines = [f'.TH FASTSOCKET 1 "" "{NAME} {version}" "User Commands"']
    lines += [".SH NAME", f"{NAME} \\- {_escaped(summary)}", ".SH SYNOPSIS"]
    for context in verbs.values():
        lines += [
            f".B {_escaped(context.command_path)}",
            _escaped(" ".join(context.command.collect_usage_pieces(context))),
        ]
        lines.append(".br")
    lines += [".SH DESCRIPTION", *description, ".SH COMMANDS"]
    for context in verbs.values():
        lines += _verb(context)
    return "\n".join(lines) + "\n" + ENDS


def _context(command: Any, name: str, parent: Any = None) -> Any:
    return command.context_class(command, info_name=name, parent=parent)


def _verb(context: Any) -> Iterator[str]:
    summary, rest = _parts(context.command.help)
    yield from (f".SS {_escaped(context.command_path)}", _escaped(summary), *rest)
    for parameter in context.command.params:
        if record := parameter.get_help_record(context):
            yield from (".TP", f".B {_escaped(record[0])}", _escaped(" ".join(record[1].split())))


def _parts(help_text: str) -> tuple[str, list[str]]:
    r"""The first paragraph of a help text, and the lines of the others. A paragraph that begins with \b is verbatim."""
    first, *others = help_text.strip().split("\n\n")
    lines: list[str] = []
    for paragraph in others:
        verbatim = paragraph.startswith("\b\n")
        text = [_escaped(line) for line in paragraph.removeprefix("\b\n").splitlines()]
        lines += [".PP", *([".nf", *text, ".fi"] if verbatim else text)]
    return " ".join(first.split()).rstrip("."), lines


def _escaped(text: str) -> str:
    """A line with its backslashes and dashes escaped, and a dot or quote at its start, where man(7) has requests."""
    plain = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain


def completion(shell: str) -> str:
    """The completion script for a shell."""
    return get_completion_script(prog_name=NAME, complete_var=COMPLETE, shell=shell) + "\n"


if __name__ == "__main__":
    print(manual() if sys.argv[1] == "man" else completion(sys.argv[1]), end="")
