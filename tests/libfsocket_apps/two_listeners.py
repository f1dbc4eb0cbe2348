"""Two workers that wait for two listeners. They take a step each time they are told to: a line "NUMBER" on stdin."""

import os
import select
import socket
import sys

first, second = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
for listener in (first, second):
    listener.setblocking(False)


def work(steps: int, watched: list[list[socket.socket]]) -> None:
    """Before each of its waits the worker begins to watch some more listeners."""
    epoll = select.epoll()
    for listeners in watched:
        os.read(steps, 1)
        for listener in listeners:
            epoll.register(listener, select.EPOLLIN)
        epoll.poll(0)
        print("waited", flush=True)
    while True:
        epoll.poll(0.05)


def worker(watched: list[list[socket.socket]]) -> tuple[int, int]:
    steps, told = os.pipe()
    pid = os.fork()
    if not pid:
        work(steps, watched)
    return pid, told


# The one comes late to the first listener, and the other begins with both.
workers = [worker([[second], [first]]), worker([[first, second]])]
print(*(pid for pid, _ in workers), flush=True)
for line in sys.stdin:
    os.write(workers[int(line)][1], b"s")
for pid, _ in workers:
    os.kill(pid, 9)
