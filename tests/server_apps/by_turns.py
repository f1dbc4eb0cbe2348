"""Two processes, each with a SO_REUSEPORT listener in an epoll in which two threads wait by turns, as runtimes do that
have one epoll for all their threads. The port is the argument."""

import os
import select
import socket
import sys
from threading import Semaphore, Thread


def serve(waiting: select.epoll, mine: Semaphore, other: Semaphore) -> None:
    while True:
        mine.acquire()
        waiting.poll(0.003)
        other.release()


def work(port: int) -> None:
    listener, waiting, first, second = socket.socket(), select.epoll(), Semaphore(1), Semaphore(0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    waiting.register(listener)
    Thread(target=serve, args=[waiting, first, second]).start()
    serve(waiting, second, first)


if __name__ == "__main__":
    os.fork()
    work(int(sys.argv[1]))
