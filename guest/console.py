"""Read a guest's console: its last lines, whether the guest came up, and how its command ended."""

import re
from collections import deque

TAIL = 20
_FATAL = re.compile(r"Kernel panic|BUG: |Oops|general protection fault|guest: ")
_OOPS = re.compile(r"BUG: |Oops|general protection fault")
_TIME = re.compile(r"^\[ *\d+\.\d+\] ")


class Console:
    """A guest's console, from the bytes that arrive from ttyS0.

    Only lines with the mark of this boot say that the guest came up, and how its command ended.
    """

    def __init__(self, mark: str):
        self.is_up = False
        self.status: int | None = None
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.reason = ""  # the first line that tells of a failure
        self.is_oops = False
        self._mark = mark
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Read the whole lines of the data. An unfinished last line waits for more data."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(line.decode(errors="replace").strip("\r"))

    def _read(self, line: str) -> None:
        word, _, said = line.partition(" ")
        if word == self._mark:
            self._marked(said)
        elif line.strip():
            self.tail.append(line)
            if _FATAL.search(line) and not self.reason:
                self.reason = _TIME.sub("", line)
            self.is_oops = self.is_oops or bool(_OOPS.search(line))

    def _marked(self, said: str) -> None:
        if said == "up":
            self.is_up = True
        elif said.isdecimal():
            self.status = int(said)
