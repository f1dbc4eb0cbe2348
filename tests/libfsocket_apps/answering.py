"""A server that answers as each request asks, to see when its answers leave.

A request is a line: the name of one of ANSWERS. The server serves all connections with one epoll, and says its port on
stdout. It ends when stdin does.
"""

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

ANSWER = b"an answer\n"
GREETS = "GREETS" in os.environ  # speaks first
POOL = "POOL" in os.environ  # another thread reads and answers, which waits for work where no hook sees it
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
        connection.setblocking(False)
        if GREETS:
            connection.send(ANSWER)
        self._open[connection.fileno()] = connection
        self._epoll.register(connection, select.EPOLLIN | (select.EPOLLET if POOL else 0))

    def _answer(self, connection: socket.socket) -> None:
        try:
            request = connection.recv(4096)
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

    def count_open(self, connection) -> None:
        """How many connections are accepted and not closed."""
        connection.send(b"%d" % len(self._open))
        self._close(connection)


server = Server()
print(server.port, flush=True)
server.serve()
