"""Every packet of some connections, as the loopback device of this network namespace carries it."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

ETH_P_ALL = 3
FLAGS = {"S": 2, "F": 1, "R": 4, "A": 16}  # without P: whether a segment is pushed shows to no application
RECEIVED = 0  # the loopback device shows each packet twice, once as it is sent
HEADERS = 120


@dataclass(frozen=True)
class Packet:
    from_server: bool
    client: int  # its port
    flags: str
    payload: int

    def __str__(self) -> str:
        return f"{'<' if self.from_server else '>'}{self.flags}{self.payload or ''}"


class Capture:
    """Of the packets to and from one port, from now on."""

    def __init__(self, port: int):
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._socket.close()

    def seen(self) -> list[Packet]:
        """Since the last call. On loopback a packet has been seen when the call that sent it returns."""
        return [*self._parse_all()]

    def _parse_all(self) -> Iterator[Packet]:
        while True:
            try:
                data, address = self._socket.recvfrom(HEADERS)
            except BlockingIOError:
                return
            if address[2] == RECEIVED and data[9] == socket.IPPROTO_TCP:
                packet = self._parsed(data)
                if packet:
                    yield packet

    def _parsed(self, data: bytes) -> Packet | None:
        source, destination = struct.unpack("!HH", data[20:24])
        if self._port not in (source, destination):
            return None
        payload = struct.unpack("!H", data[2:4])[0] - 20 - (data[32] >> 4) * 4
        flags = "".join(name for name, bit in FLAGS.items() if data[33] & bit)
        client = destination if source == self._port else source
        return Packet(source == self._port, client, flags, payload)
