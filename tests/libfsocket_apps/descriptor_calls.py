"""Operations on descriptors, whatever they are of: each returns what the call behind it answered."""

import fcntl
import os
import socket

from descriptors import is_open
from libc import Answer, call, failed
from memory import LAST, Memory

CLOSE_RANGE_CLOEXEC = 4
DUPLICATING = {"F_DUPFD": fcntl.F_DUPFD, "F_DUPFD_CLOEXEC": fcntl.F_DUPFD_CLOEXEC}


class DescriptorCalls(Memory):
    def open(self) -> Answer:
        return self._opened(os.open(os.devnull, os.O_RDONLY), "file")

    def close(self, descriptor: int) -> Answer:
        answer = call("close", descriptor)
        self._closed(descriptor, descriptor)
        return answer

    def close_range(self, first: int, last: int, flags: int) -> Answer:
        answer = call("close_range", first, last, flags)
        if answer == 0 and not flags & CLOSE_RANGE_CLOEXEC:
            self._closed(first, last)
        return answer

    def closefrom(self, first: int) -> None:
        """A void function: what it returns means nothing."""
        call("closefrom", first)
        self._closed(first, LAST)

    def dup(self, descriptor: int) -> Answer:
        return self._duplicated(call("dup", descriptor), descriptor)

    def fcntl_dup(self, descriptor: int, command: str, least: int) -> Answer:
        return self._duplicated(call("fcntl", descriptor, DUPLICATING[command], least), descriptor)

    def dup2(self, descriptor: int, to: int) -> Answer:
        return self._duplicated(call("dup2", descriptor, to), descriptor)

    def dup3(self, descriptor: int, to: int, flags: int) -> Answer:
        return self._duplicated(call("dup3", descriptor, to, flags), descriptor)

    def _duplicated(self, answer: Answer, original: int) -> Answer:
        if answer != original and not failed(answer):
            self._closed(answer, answer)
        return self._opened(answer, self._roles.get(original))

    def set_nonblocking(self, descriptor: int, nonblocking: bool) -> Answer:
        return call("fcntl", descriptor, fcntl.F_SETFL, os.O_NONBLOCK if nonblocking else 0)

    def pass_on(self, descriptor: int, close_it: bool) -> Answer:
        """Through a Unix socket to ourselves; the original may be closed while the message is on its way."""
        role = self._roles.get(descriptor)
        if role is None or not is_open(descriptor):  # else the number could be that of our Unix socket
            return "EBADF"
        sender, receiver = socket.socketpair()
        with sender, receiver:
            socket.send_fds(sender, [b"x"], [descriptor])
            if close_it:
                self.close(descriptor)
            received = socket.recv_fds(receiver, 1, 1)[1][0]
        return self._opened(received, role)
