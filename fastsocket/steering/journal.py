"""What was changed, and how to put it back: in reverse order, now or from a file by a later process."""

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
    """A file is no journal that can be acted on; the message names it, and says what to do."""

    exit_status = 3


class Journal(AbstractContextManager["Journal"]):
    """The changes so far, oldest first. As a context manager it undoes them all, also after an error.

    file: where it is kept, so that a later process can undo what this one did. A change is noted before it is made, so
    that no kill comes between the two, wherever undoing what was not done does no harm.
    """

    def __init__(self, file: Path | None = None, **about: Any):
        self.steps: list[Step] = []
        self.about = about
        self._file = file

    @classmethod
    def load(cls, file: Path) -> "Journal":
        """Raises FileNotFoundError, Refused where others than root can write it, JournalError when it is none."""
        kept = _parsed(file)
        try:
            journal = cls(file, **kept["about"])
            journal.steps = [steps.step(one) for one in kept["steps"]]
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{file} is no journal: {error}; {REMEDY}") from error
        return journal

    def note(self, step: Step) -> None:
        """This is about to be changed."""
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
        """Change a setting below /proc/sys, one of those that steps.py knows. Raises OSError."""
        self.note(steps.Sysctl(str(path.relative_to(steps.PROC_SYS)), path.read_text().strip()))
        path.write_text(value)

    def write_queue(self, device: Device, file: str, queue: int, value: str) -> None:
        """Change a setting of a device's queue in sysfs. Raises OSError."""
        path = device.queue_files(file)[queue]
        self.note(steps.QueueFile(steps.DeviceId.of(device), file, queue, path.read_text().strip()))
        path.write_text(value)

    def move_interrupt(self, device: Device, interrupt: int, cpu: int) -> None:
        """Give an interrupt of the device to a CPU. Raises OSError."""
        path = affinity(interrupt)
        self.note(steps.InterruptMoved(steps.DeviceId.of(device), interrupt, path.read_text().strip()))
        path.write_text(str(cpu))

    def undo(self) -> None:
        """All of it, newest first; one that fails does not keep the others. Raises the first failure."""
        with ExitStack() as stack:
            for step in self.steps:
                stack.callback(step.undo)
        self.steps = []
        if self._file:
            private.remove(self._file)

    def __exit__(self, *exception: object) -> None:
        self.undo()


def _fields(step: Step) -> dict[str, Any]:
    """A step that is kept in a file is one of steps.KINDS, which are dataclasses."""
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
