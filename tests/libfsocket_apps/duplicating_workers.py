"""Threads that duplicate one socket, listen each by its own descriptor, and are pinned to a CPU, as Envoy's workers do.

Its arguments are the CPUs. It says its port once all threads wait, and ends with its standard input.
"""

import os
import select
import socket
import sys
import threading

from lines import say


def serve(own: socket.socket, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    own.listen()
    epoll = select.epoll()
    epoll.register(own, select.EPOLLIN)
    epoll.poll(0)
    waiting.wait()
    while True:
        for _ in epoll.poll():
            with own.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(str(cpu).encode())


bound = socket.socket()
bound.bind(("127.0.0.1", 0))
bound.setblocking(False)
cpus = [int(word) for word in sys.argv[1:]]
waiting = threading.Barrier(len(cpus) + 1)
for cpu in cpus:
    threading.Thread(target=serve, args=(bound.dup(), cpu), daemon=True).start()
waiting.wait()
say(bound.getsockname()[1])
sys.stdin.read()
