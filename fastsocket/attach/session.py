"""An attach from its beginning to its end."""

import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from fastsocket.attach.changes import NO_CPU, ListenerGiven, WorkerPinned
from fastsocket.attach.guard import Guard, guarded
from fastsocket.attach.plan import CannotAttach, Given, plan
from fastsocket.attach.workers import listeners
from fastsocket.processes import Process, family
from fastsocket.shared_memory import NotPreloaded, mapping_of

Tell = Callable[[list[Given]], None]


@dataclass
class _Attachment:
    root: Process
    pin: bool
    guard: Guard
    given: dict[int, Given] = field(default_factory=dict)  # by inode

    def follow(self) -> bool:
        """Give what is not given yet, or was given to another CPU. True: something has changed. Raises CannotAttach."""
        wanted = {one.inode: one for one in plan(listeners(self.root.pid), self.pin)}
        changed = wanted != self.given
        for one in wanted.values():
            if one.pins:
                cpus = sorted(one.worker.cpus())
                self.guard.make(WorkerPinned(one.worker.process, one.worker.thread, one.cpu, cpus))
            before = self.given[one.inode].cpu if one.inode in self.given else NO_CPU
            if one.cpu != before:
                self.guard.make(ListenerGiven([self.root, one.worker.process], one.inode, before, one.cpu))
        self.given = wanted
        return changed


def attach(pid: int, pin: bool, watch: float | None, tell: Tell, remark: Callable[[str], None]) -> str:
    """Give each listener of a server to the CPU of its worker, until the server ends or somebody ends it; why it ended.

    pid: the process that the server's others descend from. watch: seconds after which to look again, for a reload and
    for workers that were moved. tell: gets what is given, whenever that changes. remark: why a later look changed none.
    Raises CannotAttach, Refused, PermissionError.
    """
    with ExitStack() as stack:
        server = os.pidfd_open(pid)
        stack.callback(os.close, server)
        _refuse_preloaded(pid)
        guard = stack.enter_context(guarded(pid))
        attachment, said = _Attachment(Process.at(pid), pin, guard), ""
        attachment.follow()
        tell(list(attachment.given.values()))
        while not (ended := select.select([server, guard.pidfd], [], [], watch)[0]):
            try:
                if attachment.follow():
                    tell(list(attachment.given.values()))
                why_not = ""
            except CannotAttach as reason:  # as in the middle of a reload
                why_not = str(reason)
            if why_not not in ("", said):
                remark(why_not)
            said = why_not
        return "the server has ended" if server in ended else "it was detached"


def _refuse_preloaded(pid: int) -> None:
    for process in family(pid):
        try:
            mapping_of(process)
        except (NotPreloaded, OSError):
            continue
        raise CannotAttach(f"process {process} runs with libfsocket.so, which does this and more")
