"""What env(1) of GNU coreutils makes of its arguments: which command it runs, and in which environment.

The first line of many scripts runs env, and env may remove LD_PRELOAD. The options and their order are those of
src/env.c. As in getopt_long(3), a long option may be cut to any beginning that no other option has.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

LONG = {
    "ignore-environment": "i",
    "null": "0",
    "unset": "u",
    "chdir": "C",
    "split-string": "S",
    "debug": "v",
    "argv0": "a",
    "default-signal": "",
    "ignore-signal": "",
    "block-signal": "",
    "list-signal-handling": "",
    "help": "h",
    "version": "h",
}
TAKE_A_WORD = "uCSa"
ESCAPED = {"f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", **{sign: sign for sign in "\"#$'\\"}}
BLANK = " \t\n\v\f\r"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class EnvError(Exception):
    """env would refuse these words, or run nothing; the message says why."""


@dataclass
class Command:
    """The command that env runs. directory: where env changes to first; empty: it changes to none."""

    words: list[str]
    variables: dict[str, str]
    directory: str = ""


@dataclass
class _Options:
    ignores_all: bool = False
    prints: bool = False  # True: -0 was given, with which env can only print the environment
    unset: set[str] = field(default_factory=set)
    directory: str = ""


def parse(words: list[str], inherited: Mapping[str, str]) -> Command:
    """The command that env runs for these arguments in the inherited environment. Raises EnvError."""
    options, left = _Options(), list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        left = (
            _long(word[2:], left, options, inherited)
            if word.startswith("--")
            else _short(word[1:], left, options, inherited)
        )
    if left and left[0] == "-":
        options.ignores_all, left = True, left[1:]
    variables = {} if options.ignores_all else _without(options.unset, inherited)
    while left and "=" in left[0]:
        name, _, value = left.pop(0).partition("=")
        variables[name] = value
    if not left:
        raise EnvError("it names no command")
    if options.prints:
        raise EnvError("-0 is for printing the environment, without a command")
    return Command(left, variables, options.directory)


def _without(unset: set[str], inherited: Mapping[str, str]) -> dict[str, str]:
    if wrong := [name for name in unset if not name or "=" in name]:
        raise EnvError(f"there can be no variable {wrong[0]!r} to unset")
    return {name: value for name, value in inherited.items() if name not in unset}


def _long(text: str, left: list[str], options: _Options, inherited: Mapping[str, str]) -> list[str]:
    name, equals, value = text.partition("=")
    found = [name] if name in LONG else [known for known in LONG if known.startswith(name)]
    if len(found) != 1:
        raise EnvError(f"it has no option --{name}")
    letter = LONG[found[0]]
    if not letter:  # an option about signals: it has its argument behind "=", or none
        return left
    if letter in TAKE_A_WORD and not equals:
        value, left = _word(f"--{name}", left)
    return _apply(letter, value, left, options, inherited)


def _short(text: str, left: list[str], options: _Options, inherited: Mapping[str, str]) -> list[str]:
    """Apply the option letters after one dash; returns the words that are left.

    The first letter that takes an argument takes the rest of the letters, or else the next word.
    """
    while text:
        letter, text = text[0], text[1:]
        if letter in TAKE_A_WORD:
            value, left = (text, left) if text else _word(f"-{letter}", left)
            return _apply(letter, value, left, options, inherited)
        left = _apply(letter, "", left, options, inherited)
    return left


def _word(option: str, left: list[str]) -> tuple[str, list[str]]:
    if not left:
        raise EnvError(f"{option} lacks its argument")
    return left[0], left[1:]


def _apply(letter: str, value: str, left: list[str], options: _Options, inherited: Mapping[str, str]) -> list[str]:
    """Apply one option, and return the words that are left."""
    if letter == "S":
        return [*split(value, inherited), *left]
    if letter == "i":
        options.ignores_all = True
    elif letter == "0":
        options.prints = True
    elif letter == "u":
        options.unset.add(value)
    elif letter == "C":
        options.directory = value
    elif letter in BLANK:
        raise EnvError("in a script's first line several words need -S")
    elif letter not in "va":
        raise EnvError(f"it runs nothing with the option {letter!r}")
    return left


def split(text: str, inherited: Mapping[str, str]) -> list[str]:
    """Split the text of -S into words, with quotes, escapes, ${VARIABLE} and comments as in env. Raises EnvError."""
    words: list[str] = []
    word, quote, pieces = None, "", _pieces(text)
    for piece in pieces:
        if not quote and (piece in BLANK or piece == r"\_"):
            words, word = words if word is None else [*words, word], None
        elif not quote and (piece == r"\c" or (piece == "#" and word is None)):
            break
        elif piece in "'\"" and quote in ("", piece):
            word, quote = word or "", "" if quote else piece
        else:
            word = (word or "") + _meaning(piece, quote, inherited)
    else:
        if quote:
            raise EnvError("a quote in -S does not end")
    return words if word is None else [*words, word]


def _pieces(text: str) -> Iterator[str]:
    """The characters of a text, one by one; an escape sequence, and a variable such as ${NAME}, stay in one piece."""
    return iter(re.findall(r"\\.|\$\{[A-Za-z0-9_]*\}|.", text, re.DOTALL))


def _meaning(piece: str, quote: str, inherited: Mapping[str, str]) -> str:
    if piece[0] == "\\" and not (quote == "'" and piece[1:] not in ("\\", "'")):
        if piece == r"\_":
            return " "
        if piece[1:] not in ESCAPED:
            raise EnvError(f"-S does not know the sequence {piece}")
        return ESCAPED[piece[1:]]
    if piece[0] == "$" and quote != "'":
        variable = VARIABLE.fullmatch(piece)
        if not variable:
            raise EnvError("-S takes variables as ${NAME} alone")
        return inherited.get(variable[1], "")
    return piece
