"""Commands and answers, one JSON value a line: how a test and the programs here talk."""

import json
import os


class Commands:
    """Lines [method, argument, …] on a descriptor, read unbuffered: what select() says of it is the whole truth."""

    def __init__(self, descriptor: int):
        self._file = open(descriptor, "rb", buffering=0)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def next(self) -> list | None:
        line = self._file.readline()
        return json.loads(line) if line else None


def say(answer) -> None:
    """One write() a line, so that the lines of several processes do not mix."""
    os.write(1, json.dumps(answer).encode() + b"\n")
