"""A server that answers as each request asks, to see when its answers leave.

A request is a line: the name of one of ANSWERS. The server serves all connections with one epoll, and says its port on
stdout. It ends when stdin does.
"""

import ctypes
import fcntl
import os
import queue
import select
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
from contextlib import suppress

from messages import send_data

LIBC = ctypes.CDLL(None, use_errno=True)
PAST_THE_LIBRARY = ctypes.CDLL("libc.so.6")  # its own functions, which no preloaded library stands in front of
MOST_PARTS = os.sysconf("SC_IOV_MAX")
SECONDS = struct.pack("ll", 3, 0)
# That say nothing about when data leaves, or how.
QUIET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 65536),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO, SECONDS),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO, SECONDS),
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 9),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 9),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
    (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0),
]
ANSWER = b"an answer\n"
GREETS = "GREETS" in os.environ  # speaks first
POOL = "POOL" in os.environ  # another thread reads and answers, which waits for work where no hook sees it
WHOLE = os.environ.get("WHOLE")  # the kernel waits for a whole request: by "waitall" or by "lowat"
WHOLE_BYTES = len("first close\n")
LARGE = 1_000_000
PAUSE = 0.3  # longer than the kernel holds data
BLOCK = bytes(range(250)) * 4


class Server:
    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(0, select.EPOLLIN)
        self._open: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        self._file = tempfile.TemporaryFile()
        self._file.write(BLOCK * (LARGE // len(BLOCK)))
        self._file.flush()
        self.port = self._listener.getsockname()[1]
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._do_work, daemon=True).start()

    def serve(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == 0:
                    return
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._rest:
                    self._send_rest(descriptor)
                elif POOL:
                    self._work.put(descriptor)
                else:
                    self._answer(self._open[descriptor])

    def _do_work(self) -> None:
        """An event may be of a connection that an earlier one has led to the end of."""
        while True:
            connection = self._open.get(self._work.get())
            with suppress(BlockingIOError):
                if connection:
                    self._answer(connection)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(WHOLE == "waitall")
        if WHOLE == "lowat":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, WHOLE_BYTES)
        if GREETS:
            connection.send(ANSWER)
        self._open[connection.fileno()] = connection
        self._epoll.register(connection, select.EPOLLIN | (select.EPOLLET if POOL else 0))

    def _answer(self, connection: socket.socket) -> None:
        try:
            whole = (WHOLE_BYTES, socket.MSG_WAITALL)
            request = connection.recv(*(whole if WHOLE == "waitall" else (4096,)))
        except ConnectionResetError:
            request = b""
        if not request.endswith(b"\n"):  # the end, or the first part of one
            if not request:
                self._close(connection)
            return
        getattr(self, request.split()[-1].decode())(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._open[connection.fileno()]
        connection.close()

    # ---- the answers

    def close(self, connection) -> None:
        connection.sendall(ANSWER)
        self._close(connection)

    def write(self, connection) -> None:
        os.write(connection.fileno(), ANSWER)
        self._close(connection)

    def writev(self, connection) -> None:
        os.writev(connection.fileno(), [ANSWER[:4], ANSWER[4:]])
        self._close(connection)

    def sendmsg(self, connection) -> None:
        connection.sendmsg([ANSWER[:4], ANSWER[4:]])
        self._close(connection)

    def sendto(self, connection) -> None:
        """To an address, which a connection ignores."""
        connection.sendto(ANSWER, ("127.0.0.1", 1))
        self._close(connection)

    def more(self, connection) -> None:
        connection.send(ANSWER[:4], socket.MSG_MORE)
        connection.send(ANSWER[4:])
        self._close(connection)

    def sendmmsg(self, connection) -> None:
        send_data(connection.fileno(), [ANSWER[:4], ANSWER[4:]])
        self._close(connection)

    def quiet_options(self, connection) -> None:
        connection.send(ANSWER)
        for level, name, value in QUIET_OPTIONS:
            connection.setsockopt(level, name, value)
        self._close(connection)

    def quiet_reads(self, connection) -> None:
        """From a file, an empty pipe and no descriptor, none of which waits."""
        connection.send(ANSWER)
        reading, writing = os.pipe2(os.O_NONBLOCK)
        os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        assert os.read(self._file.fileno(), 10) == BLOCK[:10]
        for descriptor in (reading, -1):
            with suppress(OSError):
                os.read(descriptor, 1)
        self._close(connection)
        os.close(reading)
        os.close(writing)

    def shutdown_reading(self, connection) -> None:
        connection.send(ANSWER)
        connection.shutdown(socket.SHUT_RD)
        self._close(connection)

    def write_nothing(self, connection) -> None:
        """And too much at once; then the answer."""
        assert os.write(connection.fileno(), b"") == os.writev(connection.fileno(), []) == 0
        with suppress(OSError):
            os.writev(connection.fileno(), [b"x"] * (MOST_PARTS + 1))
        self.write(connection)

    def splice(self, connection, flags: int = 0) -> None:
        """From one pipe to the next, and to the connection."""
        (first, to_first), (second, to_second) = os.pipe(), os.pipe()
        os.write(to_first, ANSWER)
        assert os.splice(first, to_second, len(ANSWER), flags=flags) == len(ANSWER)
        assert os.splice(second, connection.fileno(), len(ANSWER), flags=flags) == len(ANSWER)
        for descriptor in (first, to_first, second, to_second):
            os.close(descriptor)
        self._close(connection)

    def splice_nonblocking(self, connection) -> None:
        self.splice(connection, os.SPLICE_F_NONBLOCK)

    def sendfile(self, connection) -> None:
        """By both names of sendfile(), first to what is no connection."""
        one, other = socket.socketpair()
        for call, size in ((LIBC.sendfile, 4), (LIBC.sendfile64, len(ANSWER) - 4)):
            with tempfile.TemporaryFile() as file:
                file.write(ANSWER[:4] if size == 4 else ANSWER[4:])
                file.flush()
                for to in (one, connection):
                    offset = ctypes.c_int64(0)
                    assert call(to.fileno(), file.fileno(), ctypes.byref(offset), ctypes.c_size_t(size)) == size
        assert other.recv(100) == ANSWER
        one.close()
        other.close()
        self._close(connection)

    def replaced_unseen(self, connection) -> None:
        """A pipe takes the number of the connection, past the library. What the pipe gets is the answer."""
        number = connection.fileno()
        with socket.socket(fileno=PAST_THE_LIBRARY.dup(number)) as kept:
            for write in (lambda: os.write(number, ANSWER[:4]), lambda: os.writev(number, [ANSWER[4:]])):
                reading, writing = os.pipe()
                PAST_THE_LIBRARY.dup2(kept.fileno(), number)
                connection.setblocking(False)
                PAST_THE_LIBRARY.dup2(writing, number)
                write()
                kept.send(os.read(reading, 100))
                os.close(reading)
                os.close(writing)
            self._close(connection)

    def twice(self, connection) -> None:
        connection.send(ANSWER[:4])
        connection.send(ANSWER[4:])
        self._close(connection)

    def shutdown(self, connection) -> None:
        connection.send(ANSWER)
        connection.shutdown(socket.SHUT_WR)

    def keep(self, connection) -> None:
        connection.send(ANSWER)

    def think(self, connection) -> None:
        """For a second, without a call."""
        connection.send(ANSWER)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            pass
        self._close(connection)

    def sleep(self, connection) -> None:
        connection.send(ANSWER)
        time.sleep(PAUSE)
        self._close(connection)

    def poll(self, connection) -> None:
        connection.send(ANSWER)
        select.poll().poll(PAUSE * 1000)
        self._close(connection)

    def select(self, connection) -> None:
        connection.send(ANSWER)
        select.select([], [], [], PAUSE)
        self._close(connection)

    def read_pipe(self, connection) -> None:
        connection.send(ANSWER)
        reading, writing = os.pipe()
        timer = threading.Timer(PAUSE, os.close, [writing])
        timer.start()
        os.read(reading, 1)
        timer.join()
        self._close(connection)

    def ask_queue(self, connection) -> None:
        """Until all has been acknowledged."""
        connection.send(ANSWER)
        while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]:
            pass
        self._close(connection)

    def reset(self, connection) -> None:
        connection.send(ANSWER)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(connection)

    def cork(self, connection) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.send(ANSWER)
        self._close(connection)

    def nodelay(self, connection) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.send(ANSWER)
        self._close(connection)

    def large(self, connection) -> None:
        self._rest[connection.fileno()] = BLOCK * (LARGE // len(BLOCK))
        self._epoll.modify(connection, select.EPOLLOUT)
        self._send_rest(connection.fileno())

    def _send_rest(self, descriptor: int) -> None:
        connection = self._open[descriptor]
        try:
            while self._rest[descriptor]:
                self._rest[descriptor] = self._rest[descriptor][connection.send(self._rest[descriptor]) :]
        except BlockingIOError:
            return
        del self._rest[descriptor]
        self._close(connection)

    def file(self, connection) -> None:
        """A head, and a file by sendfile()."""
        connection.setblocking(True)
        connection.send(ANSWER)
        sent = 0
        while sent < LARGE:
            sent += os.sendfile(connection.fileno(), self._file.fileno(), sent, LARGE - sent)
        self._close(connection)

    def duplicate(self, connection) -> None:
        connection.send(ANSWER)
        copy = connection.dup()
        self._close(connection)
        time.sleep(PAUSE)
        copy.close()

    def fork(self, connection) -> None:
        """The child has the connection for a while."""
        connection.send(ANSWER)
        child = os.fork()
        if not child:
            time.sleep(PAUSE)
            os._exit(0)
        self._close(connection)
        os.waitpid(child, 0)

    def spawn(self, connection) -> None:
        connection.set_inheritable(True)
        connection.send(ANSWER)
        child = os.posix_spawnp("sleep", ["sleep", str(PAUSE)], os.environ)
        self._close(connection)
        os.waitpid(child, 0)

    def run(self, connection) -> None:
        """By vfork(): the child closes all that it does not need."""
        connection.send(ANSWER)
        subprocess.run(["sleep", str(PAUSE)], check=True)
        self._close(connection)

    def pass_on(self, connection) -> None:
        connection.send(ANSWER)
        ours, others = socket.socketpair()
        socket.send_fds(ours, [b"x"], [connection.fileno()])
        self._close(connection)
        time.sleep(PAUSE)
        ours.close()
        others.close()

    def other_thread(self, connection) -> None:
        """Another thread writes, and waits for a while; then this one closes."""

        def write() -> None:
            connection.send(ANSWER)
            time.sleep(PAUSE)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        self._close(connection)

    def closed_elsewhere(self, connection) -> None:
        """Another thread closes."""
        connection.send(ANSWER)
        thread = threading.Thread(target=self._close, args=[connection])
        thread.start()
        thread.join()

    def again(self, connection) -> None:
        """More to write after a wait."""
        connection.send(ANSWER)
        time.sleep(PAUSE)
        connection.send(ANSWER)
        self._close(connection)

    def unread(self, connection) -> None:
        """More is there than has been read, so close() resets the connection."""
        connection.send(ANSWER)
        connection.sendall(ANSWER)
        while not struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]:
            pass
        self._close(connection)

    # ---- before the answer

    def sleep_first(self, connection) -> None:
        time.sleep(PAUSE)
        self.close(connection)

    def wait_first(self, connection) -> None:
        select.poll().poll(0)
        self.close(connection)

    def fork_first(self, connection) -> None:
        """The child answers."""
        child = os.fork()
        if not child:
            self.close(connection)
            os._exit(0)
        self._close(connection)
        os.waitpid(child, 0)

    def quickack(self, connection) -> None:
        connection.send(b"%d" % self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
        self._close(connection)

    def defer_accept(self, connection) -> None:
        connection.send(b"%d" % self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT))
        self._close(connection)

    def listener_keepalive(self, connection) -> None:
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.close(connection)

    def listener_nodelay(self, connection) -> None:
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close(connection)

    def listener_defers(self, connection) -> None:
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        self.close(connection)

    def count_open(self, connection) -> None:
        """How many connections are accepted and not closed."""
        connection.send(b"%d" % len(self._open))
        self._close(connection)


server = Server()
print(server.port, flush=True)
server.serve()
