"""An attach from its beginning to its end."""

import os
import select
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from fastsocket.attach.changes import NO_CPU, ListenerGiven, WorkerPinned
from fastsocket.attach.guard import Guard, guarded
from fastsocket.attach.plan import CannotAttach, Given, plan
from fastsocket.attach.workers import Watched
from fastsocket.processes import Process, family
from fastsocket.servers import Ended
from fastsocket.shared_memory import NotPreloaded, mapping_of

Tell = Callable[[list[Given]], None]


@dataclass
class _Attachment:
    root: Process
    listeners: Watched
    pin: bool
    guard: Guard
    given: dict[int, Given] = field(default_factory=dict)  # what each listener was given to, by the listener's inode

    def follow(self) -> bool:
        """Give each listener to its worker's CPU, unless that CPU has it already. True: something has changed.

        Raises CannotAttach.
        """
        before = self.given
        try:
            found = self.listeners.look()
            self.given = {one.inode: before[one.inode] for one in found if one.inode in before}
            for one in plan(found, self.pin):
                self._give(one)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise CannotAttach("a worker has just ended") from error
        return self.given != before

    def _give(self, one: Given) -> None:
        process, cpu = one.worker.process, self.given[one.inode].cpu if one.inode in self.given else NO_CPU
        if one.pins:
            self.guard.make(WorkerPinned(process, one.worker.thread, one.cpu, sorted(one.worker.cpus())))
        if one.cpu != cpu:
            self.guard.make(ListenerGiven([process.pid, self.root.pid], one.inode, cpu, one.cpu))
        self.given[one.inode] = one


def attach(root: Process, pin: bool, watch: float | None, tell: Tell, remark: Callable[[str], None]) -> str:
    """Give each listener of a server to its worker's CPU, until the server ends or somebody ends the attach.

    Returns why the attach ended. root: the process from which the server's other processes descend. watch: seconds
    after which to look again, for a reload and for workers that were moved. tell: called with the given listeners
    whenever they change. remark: called with the reason when a later look could not give the listeners. Raises
    CannotAttach, Ended, OutOfReach, Refused, PermissionError.
    """
    with ExitStack() as stack:
        server = _opened(root)
        stack.callback(os.close, server)
        _refuse_preloaded(root.pid)
        guard = stack.enter_context(guarded(root.pid))
        attachment, said = _Attachment(root, Watched(root.pid), pin, guard), ""
        attachment.follow()
        tell(list(attachment.given.values()))
        while not (ended := select.select([server, guard.pidfd], [], [], watch)[0]):
            try:
                if attachment.follow():
                    tell(list(attachment.given.values()))
                why_not = ""
            except CannotAttach as reason:  # this happens in the middle of a reload
                why_not = str(reason)
            if why_not not in ("", said):
                remark(why_not)
            said = why_not
        return "the server has ended" if server in ended else "it was detached"


def _opened(root: Process) -> int:
    """A pidfd of the server's root process. Raises Ended."""
    with suppress(ProcessLookupError):
        server = os.pidfd_open(root.pid)
        if root.lives():
            return server
        os.close(server)
    raise Ended(f"process {root.pid} has ended meanwhile")


def _refuse_preloaded(pid: int) -> None:
    for process in family(pid):
        try:
            mapping_of(process)
        except (NotPreloaded, OSError):
            continue
        raise CannotAttach(f"process {process} runs with libfsocket.so, which does this and more")
