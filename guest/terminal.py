"""The terminal of a guest's command: our own terminal, if there is one; else plain output for programs."""

import os
import sys
import termios
import tty
from typing import IO, Any, Self, TextIO

# Rich and the programs that use it draw on any terminal, unless these variables say that it cannot (Rich's
# documentation, "Terminal detection").
PLAIN = {"TERM": "dumb", "TTY_COMPATIBLE": "0"}


class Terminal:
    """Use it as a context manager: the end of the with block puts the settings of our terminal back.

    Within the block, each key goes to the guest as it is. Ctrl-C goes to the guest only for a shell; otherwise it ends
    the command, and with it the guest.
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
        """The arguments of stty in the guest."""
        if not self.is_interactive:
            return "-opost -echo"
        size = os.get_terminal_size(sys.stdout.fileno())
        return f"cols {size.columns} rows {size.lines}"

    def environment(self) -> dict[str, str]:
        """The environment variables that tell programs in the guest about the terminal."""
        return {"TERM": os.environ.get("TERM", "xterm")} if self.is_interactive else PLAIN

    def show(self, data: bytes) -> None:
        """Show output of the command."""
        _write(sys.stdout, data)

    def show_error(self, data: bytes) -> None:
        """Show the command's stderr, which is separate from its output only where there is no terminal."""
        _write(sys.stderr, data)

    def type_into(self, guest: IO[bytes]) -> None:
        """Pass the keys that were typed here to the guest."""
        guest.write(os.read(sys.stdin.fileno(), 4096))


def _write(stream: TextIO, data: bytes) -> None:
    stream.buffer.write(data)
    stream.buffer.flush()
