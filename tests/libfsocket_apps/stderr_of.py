"""Run a command with a stderr that takes nothing: stderr_of.py (KIND) COMMAND …, with the signals' usual handlers."""

import fcntl
import os
import resource
import signal
import sys
import tempfile


def full_pipe() -> int:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.set_blocking(writing, False)
    while fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
    return writing


def pipe_without_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def file_at_its_limit() -> int:
    """setrlimit(2), RLIMIT_FSIZE: also for the memory that the library would share."""
    file = tempfile.TemporaryFile()
    file.write(b"x" * 4096)
    file.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    return os.dup(file.fileno())


def nothing() -> int:
    os.close(2)
    return -1


KINDS = {
    "full pipe": full_pipe,
    "pipe without reader": pipe_without_reader,
    "full device": full_device,
    "file at its limit": file_at_its_limit,
    "nothing": nothing,
}

for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(ignored_by_python, signal.SIG_DFL)
if (new := KINDS[sys.argv[1]]()) >= 0:
    os.dup2(new, 2)
os.execv(sys.argv[2], sys.argv[2:])
