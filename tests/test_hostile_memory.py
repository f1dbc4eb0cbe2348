"""Shared memory that an unprivileged worker has overwritten, or that others offer, harms no master."""

import os
import socket
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import LOOPBACK, Server
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS

PRELOAD = {"LD_PRELOAD": str(LIBRARY)}
NOBODY = 65534
SO_INCOMING_CPU, SO_COOKIE = 49, 57
MARK = 0x40000000  # libfsocket/mark.c
COOKIE_OFFSET = 88  # in struct seat of libfsocket/shared.h; the inode comes behind it
PATTERNS = {
    "ones": "ff",
    "zeros": "00",
    "positive": "7f",
    "one": struct.pack("i", 1).hex(),
    "past all CPUs": struct.pack("i", 200000).hex(),
    "negative": struct.pack("q", -2).hex(),
    "process 1": struct.pack("ii", 1, 1).hex(),
}
# Makes a page of a kind, says "ready", and shortens it to nothing when it is told to.
OFFERER = """
import os, struct, sys
page = os.memfd_create("fsocket")
os.ftruncate(page, int(sys.argv[1]))
os.pwrite(page, bytes.fromhex(sys.argv[2]), 0)
os.pwrite(page, bytes.fromhex(sys.argv[3]), int(sys.argv[4]))
print("ready", flush=True)
sys.stdin.readline()
os.ftruncate(page, 0)
print("shortened", flush=True)
sys.stdin.readline()
"""

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.privileged,
    NEEDS_TWO_CPUS,
]


def assert_it_goes_on(server: Server) -> None:
    """On the port that it had, and on a new one."""
    for listen in (False, True):
        if listen:
            server.listen()
        for cpu in CPUS:
            server.ask("fork", f"{cpu} {listen}", cpu)
        for cpu in CPUS:
            assert len(server.request(cpu, 5)) == 5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_master_goes_on_when_a_worker_has_scribbled_over_the_shared_memory(pattern):
    with Server(PRELOAD, log=None) as server:
        server.listen()
        server.ask("fork", "scribbler", CPUS[0], False, NOBODY)
        assert server.ask("tell", "scribbler", "scribble", PATTERNS[pattern]) == 1
        server.ask("reap", "scribbler")
        assert_it_goes_on(server)


def test_the_shared_memory_cannot_be_shortened():
    with Server(PRELOAD) as server:
        server.listen()
        server.ask("fork", "worker", CPUS[0], False, NOBODY)
        assert server.ask("tell", "worker", "shorten_shared_memory") == ["EPERM"]
        assert_it_goes_on(server)


@contextmanager
def offered(user: int, cookie: int, port: int):
    """A process with memory that looks like a server's, and is not sealed."""
    header = shared_memory.Header(magic=b"FSOCKET", version=shared_memory.VERSION)
    place = struct.pack("=IiQ", 1, 0, cookie)
    arguments = [str(shared_memory.MEMORY_BYTES), bytes(header).hex(), place.hex(), str(shared_memory.LISTENERS_OFFSET)]
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", OFFERER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        user=user,
        group=user,
        extra_groups=[],
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


@pytest.mark.parametrize("user", [0, NOBODY])
def test_memory_that_others_offer_with_a_listener_is_not_taken(tmp_path, user):
    """The listener that somebody sends says whose it is, and that process offers memory that gets shorter later."""
    with sent_with_memory(tmp_path, offered, user) as (server, offerer, inode):
        print("shorten", file=offerer.stdin)
        assert offerer.stdout.readline() == "shortened\n"
        assert not has_mapped(server, inode)
        assert_it_goes_on(server)


# Makes sealed memory whose file belongs to a user, writes bytes at offsets, and a socket that is to be a clone. Then
# the process becomes a user, and waits.
SEALED_OFFERER = """
import fcntl, os, socket, struct, sys
size, owner, ids, clone, port, seat, *parts = sys.argv[1:]
os.seteuid(int(owner))
memory = os.memfd_create("fsocket", os.MFD_ALLOW_SEALING)
os.seteuid(0)
os.ftruncate(memory, int(size))
for part in parts:
    offset, data = part.split(":")
    os.pwrite(memory, bytes.fromhex(data), int(offset))
if clone:
    offered = socket.socket(type=socket.SOCK_DGRAM if clone == "UDP" else socket.SOCK_STREAM)
    offered.setblocking(False)
    offered.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, clone != "not shared")
    if clone != "not shared":
        offered.bind(("127.0.0.1", int(port) if clone != "elsewhere" else 0))
    cookie = struct.unpack("Q", offered.getsockopt(socket.SOL_SOCKET, 57, 8))[0] + (clone == "another cookie")
    os.pwrite(memory, struct.pack("QQ", cookie, os.fstat(offered.fileno()).st_ino), int(seat))
fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
os.setresuid(*map(int, ids.split(",")))
print("ready", flush=True)
sys.stdin.readline()
"""


@dataclass(frozen=True)
class Offer:
    """What a process offers; as it is here, it is what a server has."""

    magic: bytes = b"FSOCKET"
    version: int = shared_memory.VERSION
    size: int = shared_memory.MEMORY_BYTES
    is_this_listener: bool = True
    in_use: int = 1
    owner: int = 0
    ids: tuple[int, int, int] = (0, 0, 0)  # of the process: real, effective, saved
    clone: str = ""  # what is wrong with the clone that the memory names; or "right", or there is none


LIES = {
    "another magic": Offer(magic=b"SOCKETS"),
    "another version": Offer(version=shared_memory.VERSION + 1),
    "too short": Offer(size=shared_memory.MEMORY_BYTES - 4096),
    "another listener": Offer(is_this_listener=False),
    "a place not in use": Offer(in_use=0),
    "a file of another user": Offer(owner=NOBODY),
    "another real user": Offer(ids=(NOBODY, 0, 0)),
    "another effective user": Offer(ids=(0, NOBODY, 0)),
    "another saved user": Offer(ids=(0, 0, NOBODY)),
}


@contextmanager
def offered_sealed(offer: Offer, cookie: int, port: int):
    header = shared_memory.Header(magic=offer.magic, version=offer.version)
    place = struct.pack("=IiQ", offer.in_use, 0, cookie if offer.is_this_listener else cookie + 1)
    parts = [f"0:{bytes(header).hex()}", f"{shared_memory.LISTENERS_OFFSET}:{place.hex()}"]
    seat = shared_memory.LISTENERS_OFFSET + shared_memory.SEATS_OFFSET + COOKIE_OFFSET
    own = [offer.size, offer.owner, ",".join(map(str, offer.ids)), offer.clone, port, seat]
    arguments = [*map(str, own), *parts]
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", SEALED_OFFERER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def has_mapped(server: Server, inode: int) -> bool:
    with open(f"/proc/{server.pid}/maps") as maps:
        return f" {inode} " in maps.read()


@pytest.mark.parametrize("lie", [None, *LIES])
def test_sealed_memory_is_taken_only_where_nothing_of_it_is_a_lie(tmp_path, lie):
    with sent_with_memory(tmp_path, offered_sealed, LIES[lie] if lie else Offer()) as (server, _, inode):
        assert has_mapped(server, inode) == (lie is None)
        assert_it_goes_on(server)


def inodes_of(pid: int) -> set[str]:
    return {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize("clone", ["right", "another cookie", "UDP", "not shared", "elsewhere"])
def test_a_socket_is_taken_for_a_clone_only_where_it_is_one(tmp_path, clone):
    with sent_with_memory(tmp_path, offered_sealed, Offer(clone=clone)) as (server, offerer, _):
        taken = os.readlink(f"/proc/{offerer.pid}/fd/4") in inodes_of(server.pid)
        assert taken == (clone == "right")
        assert_it_goes_on(server)


def test_a_server_that_has_memory_of_its_own_takes_no_other(tmp_path):
    with sent_with_memory(tmp_path, offered_sealed, Offer(), "listen_also") as (server, _, inode):
        assert not has_mapped(server, inode)
        assert_it_goes_on(server)


@contextmanager
def sent_with_memory(tmp_path, offering, what, *before):
    """A server has received a listener from a process that offers memory: both, and the inode of the memory."""
    with (
        socket.create_server((LOOPBACK, 0)) as listener,
        socket.socket(socket.AF_UNIX) as unix,
        Server(PRELOAD, log=None) as server,
    ):
        cookie = struct.unpack("Q", listener.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]
        unix.bind(str(tmp_path / "unix"))
        unix.listen()
        for command in before:
            server.ask(command)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with offering(what, cookie, listener.getsockname()[1]) as offerer:
            listener.setsockopt(socket.SOL_SOCKET, SO_INCOMING_CPU, MARK | offerer.pid)
            server.tell("receive", str(tmp_path / "unix"))
            with unix.accept()[0] as connection:
                socket.send_fds(connection, [b"x"], [listener.fileno()])
                server.know(server.read())
            yield server, offerer, os.stat(f"/proc/{offerer.pid}/fd/3").st_ino
