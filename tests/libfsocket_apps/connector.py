"""Active connections, over the loopback device and with libc's own calls; the listeners are here, too."""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

from libc import FAMILIES, LOOPBACK, Answer, call, name_of, option_of, pack, port_of, set_option
from lines import Commands, say
from loopback import on_cpus

IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 24, 51
SECONDS_UNTIL_INTERRUPTED = 0.05
NOWHERE = pack("inet", LOOPBACK["inet"], 1)
UNSPECIFIED = struct.pack("=H14x", socket.AF_UNSPEC)


def family_of_host(host: str) -> str:
    return "inet6" if ":" in host else "inet"


class Connector:
    """Each public method is a command. Sockets stay open, so that what they hold stays taken."""

    def __init__(self):
        self._listeners: list[socket.socket] = []
        self._connections: list[int] = []

    def listen(self, host: str, backlog: int = 4096) -> int:
        """Returns the port."""
        listener = socket.socket(FAMILIES[family_of_host(host)])
        listener.bind((host, 0))
        listener.listen(backlog)
        self._listeners.append(listener)
        return listener.getsockname()[1]

    def listen_at(self, host: str, port: int) -> int:
        listener = socket.create_server((host, port))
        self._listeners.append(listener)
        return port

    def connect(self, cpu: int, host: str, port: int, wishes: dict) -> dict:
        """A connection made on a CPU: what connect() answered, the source port, and what is left of it to see."""
        with on_cpus({cpu}):
            family = family_of_host(host)
            nonblocking = socket.SOCK_NONBLOCK if wishes.get("nonblocking") else 0
            connection = call("socket", FAMILIES[family], socket.SOCK_STREAM | nonblocking, 0)
            self._connections.append(connection)
            if wishes.get("no_port"):
                set_option(connection, socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            if "range" in wishes:
                set_option(connection, socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, wishes["range"])
            if "bind" in wishes:
                own = pack(family, *wishes["bind"])
                assert call("bind", connection, own, len(own)) == 0
            if wishes.get("duplicate"):
                connection = call("dup", connection)
                self._connections.append(connection)
            bound = port_of(name_of(connection))
            address = pack(family, host, port)
            answer = call("connect", connection, address, len(address))
        return {
            "answer": answer,
            "port": port_of(name_of(connection)),
            "bound": bound,
            "range": option_of(connection, socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE),
        }

    def connect_many(self, number: int, *arguments) -> list[dict]:
        return [self.connect(*arguments) for _ in range(number)]

    def connect_on_thread(self, *arguments) -> dict:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.connect(*arguments)))
        thread.start()
        thread.join()
        return answers[0]

    def connect_in_child(self, number: int, *arguments) -> list[dict]:
        reader, writer = os.pipe()
        if not os.fork():
            os.dup2(writer, 1)
            say(self.connect_many(number, *arguments))
            os._exit(0)
        os.close(writer)
        answer = Commands(reader).next()
        os.wait()
        return answer

    def close_connections(self) -> None:
        """These sides first, so that they are the ones in TIME_WAIT."""
        for connection in self._connections:
            os.close(connection)
        self._connections.clear()
        for listener in self._listeners:
            listener.setblocking(False)
            try:
                while True:
                    listener.accept()[0].close()
            except BlockingIOError:
                listener.setblocking(True)

    def range_after_spawn(self, cpu: int, port: int) -> Answer:
        """subprocess calls vfork(), and the child closes what it inherits before it is another program."""
        self.connect(cpu, LOOPBACK["inet"], port, {})
        subprocess.run(["true"], check=True)
        return option_of(self._connections[-1], socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE)

    def use_again(self, cpu: int, port: int, how: str) -> Answer:
        """After a disconnect, when somebody else has the port that it had: bind() to any port, or listen()."""
        own = self.connect(cpu, LOOPBACK["inet"], port, {})["port"]
        connection = self._connections[-1]
        assert call("connect", connection, UNSPECIFIED, len(UNSPECIFIED)) == 0
        holder, taken, any_port = socket.socket(), *(pack("inet", LOOPBACK["inet"], number) for number in (own, 0))
        self._listeners.append(holder)
        assert call("bind", holder.fileno(), taken, len(taken)) == 0
        return call("listen", connection, 1) if how == "listen" else call("bind", connection, any_port, len(any_port))

    def connect_to_itself(self, cpu: int, how: str) -> Answer:
        """connect() fails. Then the socket connects to its own former port, on which no socket listens."""
        port = self.listen(LOOPBACK["inet"], 0)
        if how == "shut down":  # the connection waits, because the listener's queue is full
            self.connect_many(4, cpu, LOOPBACK["inet"], port, {"nonblocking": True})
        own = self.connect(cpu, LOOPBACK["inet"], 1 if how == "refused" else port, {"nonblocking": True})["port"]
        connection = self._connections[-1]
        if how == "refused":
            assert call("connect", connection, NOWHERE, len(NOWHERE)) == "ECONNREFUSED"
        elif how == "disconnected":
            assert call("connect", connection, UNSPECIFIED, len(UNSPECIFIED)) == 0
        else:
            assert call("shutdown", connection, socket.SHUT_RDWR) == 0
        os.set_blocking(connection, True)
        itself = pack("inet", LOOPBACK["inet"], own)
        return call("connect", connection, itself, len(itself))

    def pid(self) -> int:
        return os.getpid()

    def odd_calls(self, port: int) -> list[list]:
        """connect() and bind() as they are not meant to be called, and what they answer."""
        listening = pack("inet", LOOPBACK["inet"], port)
        seen = []
        for name, opened in {
            "tcp": lambda: call("socket", socket.AF_INET, socket.SOCK_STREAM, 0),
            "tcp6": lambda: call("socket", socket.AF_INET6, socket.SOCK_STREAM, 0),
            "udp": lambda: call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0),
            "unix": lambda: call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0),
            "listener": lambda: os.dup(self._listeners[0].fileno()),
            "file": lambda: os.open(os.devnull, os.O_RDONLY),
            "closed": lambda: 900,
            "negative": lambda: -1,
        }.items():
            for attempt, addresses in {
                "bad pointer": [(ctypes.c_void_p(1), 16)],
                "null": [(None, 16)],
                "null and empty": [(None, 0)],
                "short": [(listening, 4)],
                "long": [(listening, 4096)],
                "negative": [(listening, -1)],
                "no family": [(b"\xff" * 16, 16)],
                "twice": [(listening, 16), (listening, 16)],
                "after a refusal": [(NOWHERE, 16), (listening, 16)],
                "after a disconnect": [(listening, 16), (UNSPECIFIED, 16), (listening, 16)],
                "disconnected first": [(UNSPECIFIED, 16), (listening, 16)],
                "no source address": [(pack("inet6", "2001:db8::1", 1), 28), (listening, 16)],
            }.items():
                for function in ("connect", "bind"):
                    descriptor = opened()
                    for address, size in addresses:
                        seen.append([name, attempt, function, call(function, descriptor, address, size)])
                    seen.append(["range", option_of(descriptor, socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE)])
                    if descriptor not in (-1, 900):
                        os.close(descriptor)
        return seen

    def interrupt_connect(self, cpu: int) -> list[Answer]:
        """A blocking one that nobody answers, because its listener's queue is full; then the same socket again."""
        port = self.listen(LOOPBACK["inet"], 0)
        self.connect_many(4, cpu, LOOPBACK["inet"], port, {"nonblocking": True})
        signal.signal(signal.SIGALRM, lambda *_: None)
        descriptor = call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
        address = pack("inet", LOOPBACK["inet"], port)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_INTERRUPTED)
        with on_cpus({cpu}):
            first = call("connect", descriptor, address, len(address))
        os.set_blocking(descriptor, False)
        again = call("connect", descriptor, address, len(address))
        return [first, again, option_of(descriptor, socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE)]


def main() -> None:
    commands, connector = Commands(0), Connector()
    while command := commands.next():
        say(getattr(connector, command[0])(*command[1:]))


if __name__ == "__main__":
    sys.exit(main())
