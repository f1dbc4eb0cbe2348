"""The terminal of a guest's command: ours, if there is one; else plain output for programs."""

import os
import sys
import termios
import tty
from typing import IO, Any, Self, TextIO

# Rich and what is built on it take any terminal for one that can draw, unless told so (its documentation, "Terminal
# detection").
PLAIN = {"TERM": "dumb", "TTY_COMPATIBLE": "0"}


class Terminal:
    """Use as a context manager: leaving puts the settings of our terminal back.

    While it is in use each key goes to the guest as it is. Ctrl-C does only for a shell; a command, and with it the
    guest, it ends.
    """

    def __init__(self, is_shell: bool):
        self.is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._is_shell = is_shell
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if self.is_interactive:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setraw(sys.stdin)
            if not self._is_shell:
                ours = termios.tcgetattr(sys.stdin)
                ours[tty.LFLAG] |= termios.ISIG
                termios.tcsetattr(sys.stdin, termios.TCSANOW, ours)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def settings(self) -> str:
        """For stty in the guest."""
        if not self.is_interactive:
            return "-opost -echo"
        size = os.get_terminal_size(sys.stdout.fileno())
        return f"cols {size.columns} rows {size.lines}"

    def environment(self) -> dict[str, str]:
        """What programs in the guest are told of the terminal."""
        return {"TERM": os.environ.get("TERM", "xterm")} if self.is_interactive else PLAIN

    def show(self, data: bytes) -> None:
        """Output of the command."""
        _write(sys.stdout, data)

    def show_error(self, data: bytes) -> None:
        """Its errors, which come apart only without a terminal."""
        _write(sys.stderr, data)

    def type_into(self, guest: IO[bytes]) -> None:
        """Our keys."""
        guest.write(os.read(sys.stdin.fileno(), 4096))


def _write(stream: TextIO, data: bytes) -> None:
    stream.buffer.write(data)
    stream.buffer.flush()
