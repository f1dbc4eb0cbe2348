"""What a guest says: the last lines of its console, and whether it came up and how its command ended."""

import re
from collections import deque

TAIL = 20
_FATAL = re.compile(r"Kernel panic|BUG: |Oops|general protection fault|guest: ")
_OOPS = re.compile(r"BUG: |Oops|general protection fault")
_TIME = re.compile(r"^\[ *\d+\.\d+\] ")


class Console:
    """Made of the bytes that arrive from ttyS0. Nothing but a line with this boot's mark tells of an end in order."""

    def __init__(self, mark: str):
        self.is_up = False
        self.status: int | None = None
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.reason = ""  # the first line that tells of a failure
        self.is_oops = False
        self._mark = mark
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Whole lines are read; what is behind the last one waits for more."""
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
