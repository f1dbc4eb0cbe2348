"""The journal notes changes and puts them back in reverse order, now or later from a file in another process."""

import json
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from fastsocket.steering import private, steps
from fastsocket.steering.device import Device
from fastsocket.steering.interrupts import affinity
from fastsocket.steering.steps import Step

FORMAT = 2
REMEDY = "undo by hand what it names, or restart the machine, which forgets both; then remove it"


class JournalError(ValueError):
    """A file is no journal, or one of another version; the message names the file, and says what to do."""

    exit_status = 3


class Journal(AbstractContextManager["Journal"]):
    """The changes so far, oldest first. As a context manager it undoes all of them, also after an error.

    file: where the journal is kept, so that a later process can undo the changes. A change is noted before it is made,
    so that a kill cannot leave an unnoted change. The exception is a change that does harm when it is undone without
    having been made.
    """

    def __init__(self, file: Path | None = None, **about: Any):
        self.steps: list[Step] = []
        self.about = about
        self._file = file

    @classmethod
    def load(cls, file: Path) -> "Journal":
        """The journal that a file holds.

        Raises FileNotFoundError, Refused where others than root can write the file, JournalError when it is no journal.
        """
        kept = _parsed(file)
        try:
            journal = cls(file, **kept["about"])
            journal.steps = [steps.step(one) for one in kept["steps"]]
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{file} is no journal: {error}; {REMEDY}") from error
        return journal

    def note(self, step: Step) -> None:
        """Note a change that is about to be made."""
        self.steps.append(step)
        self.save()

    def save(self) -> None:
        if self._file:
            kept = {
                "format": FORMAT,
                "about": self.about,
                "steps": [{"kind": type(step).__name__, **_fields(step)} for step in self.steps],
            }
            private.replace(self._file, json.dumps(kept, indent=1).encode())

    def write(self, path: Path, value: str) -> None:
        """Note and change a setting below /proc/sys, one of those that steps.py knows. Raises OSError."""
        self.note(steps.Sysctl(str(path.relative_to(steps.PROC_SYS)), path.read_text().strip()))
        path.write_text(value)

    def write_queue(self, device: Device, file: str, queue: int, value: str) -> None:
        """Note and change a setting of a device's queue in sysfs. Raises OSError."""
        path = device.queue_files(file)[queue]
        self.note(steps.QueueFile(steps.DeviceId.of(device), file, queue, path.read_text().strip()))
        path.write_text(value)

    def move_interrupt(self, device: Device, interrupt: int, cpu: int) -> None:
        """Note and make the change that gives an interrupt of the device to a CPU. Raises OSError."""
        path = affinity(interrupt)
        self.note(steps.InterruptMoved(steps.DeviceId.of(device), interrupt, path.read_text().strip()))
        path.write_text(str(cpu))

    def undo(self) -> None:
        """Undo all changes, the newest first. A failure does not keep the other changes from being undone.

        Raises the last failure, with an earlier one as its context.
        """
        with ExitStack() as stack:
            for step in self.steps:
                stack.callback(step.undo)
        self.steps = []
        if self._file:
            private.remove(self._file)

    def __exit__(self, *exception: object) -> None:
        self.undo()


def _fields(step: Step) -> dict[str, Any]:
    """A step's fields for JSON. Steps that are kept in a file are of steps.KINDS, which are dataclasses."""
    return {name: vars(value) if isinstance(value, steps.DeviceId) else value for name, value in vars(step).items()}


def _parsed(file: Path) -> dict[str, Any]:
    content = private.read(file)
    try:
        kept = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"{file} is no journal; {REMEDY}") from error
    if not isinstance(kept, dict) or not isinstance(kept.get("about"), dict) or not isinstance(kept.get("steps"), list):
        raise JournalError(f"{file} is no journal; {REMEDY}")
    if kept.get("format") != FORMAT:
        raise JournalError(
            f"{file} is of another version of fastsocket: switch off with that one what it set, or "
            "restart the machine, which forgets both; then remove it"
        )
    return kept
