"""A master that binds, and forks workers that call listen() themselves, each pinned to a CPU.

Each line is a command: ["fork", CPU], ["kill", process id], or ["sockets", process id, …]: what these have open at 512
and above.
"""

import os
import select
import signal
import socket

from lines import Commands, say


def serve(shared: socket.socket, cpu: int) -> None:
    shared.listen()
    os.sched_setaffinity(0, {cpu})
    shared.setblocking(False)
    epoll = select.epoll()
    epoll.register(shared, select.EPOLLIN)
    epoll.poll(0)
    say(os.getpid())
    while True:
        for _ in epoll.poll():
            with shared.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(str(cpu).encode())


def fork(shared: socket.socket, cpu: int) -> None:
    """The child says its process id."""
    if (pid := os.fork()) == 0:
        serve(shared, cpu)
    running.add(pid)


def kill(pid: int) -> None:
    running.remove(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def sockets(pid: int) -> list[str]:
    links = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    return sorted(link for number, link in links.items() if int(number) >= 512 and link.startswith("socket"))


running: set[int] = set()
bound = socket.socket()
bound.bind(("127.0.0.1", 0))
say(bound.getsockname()[1])
commands = Commands(0)
while command := commands.next():
    method, *arguments = command
    if method == "fork":
        fork(bound, *arguments)
    elif method == "kill":
        say(kill(*arguments))
    else:
        say([sockets(pid) for pid in arguments])
for worker in list(running):
    kill(worker)
