"""What was changed, and how to put it back: in reverse order, now or from a file by a later process."""

import json
import os
import subprocess
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from fastsocket import libbpf
from fastsocket.steering import command
from fastsocket.steering.device import Device


class Step(Protocol):
    """One change. A journal that is saved holds only dataclasses from STEPS."""

    def undo(self) -> None: ...


@dataclass(frozen=True)
class FileWritten:
    """A setting in /sys or /proc/sys, and its value before."""

    path: str
    before: str

    def undo(self) -> None:
        if Path(self.path).exists():  # else its device is gone, and the setting with it
            Path(self.path).write_text(self.before)


@dataclass(frozen=True)
class EgressFilter:
    """Our tc filter at a device's egress. made_hook: the clsact qdisc is ours, too."""

    name: str
    process: int | None
    handle: int
    program_id: int
    made_hook: bool

    def undo(self) -> None:
        device = Device(self.name, self.process)
        if not device.exists():
            return
        index = device.index
        with device.inside():
            libbpf.detach_egress(index, self.handle, self.program_id)
            if self.made_hook and not _has_filters(self.name):
                libbpf.destroy_clsact(index)


def _has_filters(device: str) -> bool:
    """Somebody else's, which would go with our clsact."""
    shown = [subprocess.run(["tc", "filter", "show", "dev", device, direction], capture_output=True).stdout
             for direction in ("ingress", "egress")]
    return any(shown)


@dataclass(frozen=True)
class XdpAttached:
    """Our XDP program on a device. flags: the mode that it was attached in."""

    name: str
    process: int | None
    program_id: int
    flags: int

    def undo(self) -> None:
        device = Device(self.name, self.process)
        if not device.exists():
            return
        index = device.index
        with device.inside():
            if libbpf.xdp_program_id(index) == self.program_id:
                libbpf.detach_xdp(index, self.flags)


@dataclass(frozen=True)
class CommandRun:
    """Something that a tool did to a device. undoing: the command that puts it back."""

    name: str
    process: int | None
    undoing: list[str]

    def undo(self) -> None:
        device = Device(self.name, self.process)
        if device.exists():
            with device.inside():
                command.run(self.undoing)


STEPS = {kind.__name__: kind for kind in (FileWritten, EgressFilter, XdpAttached, CommandRun)}


class Journal(AbstractContextManager):
    """The changes so far, oldest first. As a context manager it undoes them all, whatever happened.

    file: where it is kept, so that a later process can undo what this one did. A change is noted before it is made, so
    that no kill comes between the two, wherever undoing what was not done does no harm.
    """

    def __init__(self, file: Path | None = None, **about):
        self.steps: list[Step] = []
        self.about = about
        self._file = file

    @classmethod
    def load(cls, file: Path) -> "Journal":
        """Raises OSError when it cannot be read, ValueError when it is no journal."""
        try:
            kept = json.loads(file.read_text())
            journal = cls(file, **kept["about"])
            journal.steps = [STEPS[kind](**fields) for kind, fields in kept["steps"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is no journal") from error
        return journal

    def note(self, step: Step) -> None:
        """This is about to be changed."""
        self.steps.append(step)
        self.save()

    def save(self) -> None:
        if self._file:
            kept = {"about": self.about, "steps": [(type(step).__name__, asdict(step)) for step in self.steps]}
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(kept, indent=1))
            os.replace(new, self._file)

    def write(self, path: Path, value: str) -> None:
        """Change a setting in /sys or /proc/sys. Raises OSError."""
        before = path.read_text()
        self.note(FileWritten(str(path), before))
        path.write_text(value)

    def change(self, device: Device, doing: list[str], undoing: list[str]) -> None:
        """Run a command in the device's namespace that another one undoes. Raises Refused."""
        command.run(doing)
        self.note(CommandRun(device.name, device.process, undoing))

    def undo(self) -> None:
        """All of it, newest first; one that fails does not keep the others. Raises the first failure."""
        with ExitStack() as stack:
            for step in self.steps:
                stack.callback(step.undo)
        self.steps = []
        if self._file:
            self._file.unlink(missing_ok=True)

    def __exit__(self, *exception):
        self.undo()
