"""Calls with pointers and lengths that are wrong: what each returns, or the signal that it dies of, in one line."""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable

from lines import say

LIBC = ctypes.CDLL(None, use_errno=True)
BAD, MANY = ctypes.c_void_p(8), 0x7FFFFFFF
LIBC.sendmsg.restype = LIBC.recvmsg.restype = ctypes.c_ssize_t
CONTROL = ctypes.create_string_buffer(64)


def message(control: int | None, control_length: int, header: bytes = b"") -> bytes:
    """A struct msghdr with one byte of data (recvmsg(2)). header: what the control data begin with."""
    ctypes.memmove(CONTROL, header.ljust(64, b"\0"), 64)
    data = ctypes.create_string_buffer(1)
    parts = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(data), 1))
    message.kept = data, parts
    return struct.pack("@PIPNPNi", 0, 0, ctypes.addressof(parts), 1, control or 0, control_length, 0)


def header(length: int) -> bytes:
    return struct.pack("@Nii", length, socket.SOL_SOCKET, socket.SCM_RIGHTS) + struct.pack("i", 0) * 4


def messages() -> dict[str, bytes]:
    here = ctypes.addressof(CONTROL)
    lengths = {
        f"a header of {length}": message(here, 40, header(length))
        for length in (0, 1, 15, 16, 17, 20, 40, 41, MANY, 2**63)
    }
    sizes = {f"control of {size}": message(here, size, header(20)) for size in (0, 1, 15, 16, 20, 24, 2**31)}
    return (
        lengths
        | sizes
        | {
            "control nowhere": message(8, 64),
            "no control of 64": message(None, 64),
            "control at the end of memory": message(2**64 - 8, 64),
        }
    )


def pair() -> tuple[socket.socket, socket.socket]:
    one, two = socket.socketpair(socket.AF_UNIX)
    one.setblocking(False)
    two.setblocking(False)
    return one, two


def send(message_bytes: bytes) -> int:
    one, _ = pair()
    return LIBC.sendmsg(one.fileno(), ctypes.create_string_buffer(message_bytes), 0)


def receive(message_bytes: bytes) -> int:
    one, two = pair()
    socket.send_fds(two, [b"x"], [0, 1])
    return LIBC.recvmsg(one.fileno(), ctypes.create_string_buffer(message_bytes), 0)


def listener() -> int:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    listener.kept = listening
    return listening.fileno()


def epoll(event) -> int:
    epfd = LIBC.epoll_create1(0)
    return LIBC.epoll_ctl(epfd, 1, listener(), event)


def wait(events, room: int) -> int:
    epfd = LIBC.epoll_create1(0)
    LIBC.epoll_ctl(epfd, 1, listener(), ctypes.create_string_buffer(struct.pack("=IQ", 1, 1)))
    client = socket.create_connection(listener.kept.getsockname())
    result = LIBC.epoll_wait(epfd, events, room, 100)
    client.close()
    return result


def polled() -> ctypes.Array:
    """A struct pollfd of a listener."""
    return ctypes.create_string_buffer(struct.pack("@ihh", listener(), 1, 0), 8)


def selected() -> ctypes.Array:
    """An fd_set of a listener."""
    return ctypes.create_string_buffer((1 << listener()).to_bytes(128, "little"), 128)


def read_only(content: ctypes.Array) -> ctypes.c_void_p:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory.write(bytes(content))
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    LIBC.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ)
    return address


def poll_at_limit() -> int:
    """A second time, when the process may open no more than it polls: sandboxes set such limits."""
    listening = polled()
    LIBC.poll(listening, ctypes.c_ulong(1), 50)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
    return LIBC.poll(listening, ctypes.c_ulong(1), 50)


def time(seconds: int, fraction: int) -> ctypes.Array:
    return ctypes.create_string_buffer(struct.pack("@qq", seconds, fraction), 16)


def woken(call: Callable) -> int:
    """Of a wait that may be for ever."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return call()


TIMES = {
    "nowhere": BAD,
    "of a negative second": time(-1, 0),
    "of a negative fraction": time(0, -1),
    "of too long a fraction": time(0, 1_000_000_000),
    "of millennia": time(10**11, 0),
    "of no end": time(2**63 - 1, 0),
}
ARGUMENTS = (ctypes.c_char_p * 2)(b"/nonexistent", None)
PATH = b"/nonexistent/program"
CALLS = {
    **{f"sendmsg, {name}": lambda bytes_=bytes_: send(bytes_) for name, bytes_ in messages().items()},
    **{f"recvmsg, {name}": lambda bytes_=bytes_: receive(bytes_) for name, bytes_ in messages().items()},
    "sendmsg of nothing": lambda: LIBC.sendmsg(pair()[0].fileno(), None, 0),
    "sendmsg of a bad pointer": lambda: LIBC.sendmsg(pair()[0].fileno(), BAD, 0),
    "recvmsg to nothing": lambda: LIBC.recvmsg(pair()[0].fileno(), None, 0),
    "recvmsg to a bad pointer": lambda: LIBC.recvmsg(pair()[0].fileno(), BAD, 0),
    "execve of nothing": lambda: LIBC.execve(None, ARGUMENTS, ARGUMENTS),
    "execve of a bad pointer": lambda: LIBC.execve(BAD, ARGUMENTS, ARGUMENTS),
    "execve without arguments": lambda: LIBC.execve(PATH, None, None),
    "execve with bad arguments": lambda: LIBC.execve(PATH, BAD, ARGUMENTS),
    "execve with a bad environment": lambda: LIBC.execve(b"/bin/true", ARGUMENTS, BAD),
    "execve with a bad environment, and a listener": lambda: (listener(), LIBC.execve(b"/bin/true", ARGUMENTS, BAD))[1],
    "execve with a bad variable": lambda: LIBC.execve(b"/bin/true", ARGUMENTS, (ctypes.c_void_p * 2)(8, None)),
    "execve with a bad variable, and a listener": lambda: (
        os.set_inheritable(listener(), True),
        LIBC.execve(b"/bin/true", ARGUMENTS, (ctypes.c_void_p * 2)(8, None)),
    )[1],
    "execve of what is not there, with a listener": lambda: (listener(), LIBC.execve(PATH, ARGUMENTS, ARGUMENTS))[1],
    **{
        f"ppoll of a listener for a time {name}": lambda when=when: woken(
            lambda: LIBC.ppoll(polled(), ctypes.c_ulong(1), when, None)
        )
        for name, when in TIMES.items()
    },
    **{
        f"select of a listener for a time {name}": lambda when=when: woken(
            lambda: LIBC.select(64, selected(), None, None, when)
        )
        for name, when in TIMES.items()
    },
    **{
        f"pselect of a listener for a time {name}": lambda when=when: woken(
            lambda: LIBC.pselect(64, selected(), None, None, when, None)
        )
        for name, when in TIMES.items()
    },
    "select of a listener, and a bad pointer": lambda: LIBC.select(64, selected(), BAD, None, time(0, 1)),
    "pselect of a listener, and a bad pointer": lambda: LIBC.pselect(64, selected(), None, BAD, time(0, 1), None),
    "select of a listener in memory that is read-only": lambda: LIBC.select(
        64, read_only(selected()), None, None, time(0, 50_000)
    ),
    "pselect of a listener, and read-only memory": lambda: LIBC.pselect(
        64, selected(), None, read_only(ctypes.create_string_buffer(128)), time(0, 50_000_000), None
    ),
    "poll of a listener in memory that is read-only": lambda: LIBC.poll(read_only(polled()), ctypes.c_ulong(1), 50),
    "poll of as many as there may be": poll_at_limit,
    "ppoll of a listener with a bad mask": lambda: LIBC.ppoll(polled(), ctypes.c_ulong(1), time(0, 1), BAD),
    "poll of nothing": lambda: LIBC.poll(None, ctypes.c_ulong(3), 0),
    "poll of nothing, waiting": lambda: LIBC.poll(None, ctypes.c_ulong(3), 50),
    "poll of a bad pointer": lambda: LIBC.poll(BAD, ctypes.c_ulong(1), 50),
    "poll of too many": lambda: LIBC.poll(BAD, ctypes.c_ulong(MANY), 50),
    "ppoll of a bad pointer": lambda: LIBC.ppoll(BAD, ctypes.c_ulong(1), None, None),
    "ppoll with a bad time": lambda: LIBC.ppoll(None, ctypes.c_ulong(0), BAD, None),
    "select of a bad pointer": lambda: LIBC.select(64, BAD, None, None, None),
    "select with a bad time": lambda: LIBC.select(0, None, None, None, BAD),
    "select of a negative number": lambda: LIBC.select(-1, CONTROL, None, None, None),
    "epoll_ctl with nothing": lambda: epoll(None),
    "epoll_ctl with a bad pointer": lambda: epoll(BAD),
    "epoll_wait into nothing": lambda: wait(None, 1),
    "epoll_wait into a bad pointer": lambda: wait(BAD, 1),
    "epoll_wait for no event": lambda: wait(CONTROL, 0),
    "epoll_wait for a negative number of events": lambda: wait(CONTROL, -1),
    "getsockopt into a bad pointer": lambda: LIBC.getsockopt(listener(), 1, 15, BAD, BAD),
    "getsockopt with a bad length": lambda: LIBC.getsockopt(listener(), 1, 15, CONTROL, BAD),
    "setsockopt from a bad pointer": lambda: LIBC.setsockopt(listener(), 1, 9, BAD, 4),
    "accept4 into a bad pointer": lambda: LIBC.accept4(listener(), BAD, BAD, 0),
    "accept4 with bad flags": lambda: LIBC.accept4(listener(), None, None, 0x7FFFFFFF),
    "bind to nothing": lambda: LIBC.bind(socket.socket().detach(), None, 16),
    "connect to a bad pointer": lambda: LIBC.connect(socket.socket().detach(), BAD, 16),
    "sched_getaffinity into a bad pointer": lambda: LIBC.sched_getaffinity(0, 128, BAD),
    "sched_getaffinity into too little": lambda: LIBC.sched_getaffinity(0, 1, CONTROL),
}


def outcome(call) -> str:
    """In a child, which may die."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        ctypes.set_errno(0)
        result = call()
        os.write(writing, f"{result} {errno.errorcode.get(ctypes.get_errno(), 0) if result < 0 else ''}".encode())
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    said = os.read(reading, 100).decode()
    os.close(reading)
    return (
        said
        if status == 0
        else f"status {status}"
        if not os.WIFSIGNALED(status)
        else signal.Signals(os.WTERMSIG(status)).name
    )


say({name: outcome(call) for name, call in CALLS.items()})
