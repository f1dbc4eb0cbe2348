"""Does fastsocket nic work in every mode on virtio_net with a queue for each CPU?

The clients are in the network namespace ``client``.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from guest.checks import CPUS, FASTSOCKET, No, accepted, answer, output, wait_until_adopted
from tests.harness.locality import MOSTLY
from tests.harness.servers import Served, nginx, served

ADDRESS, PORT, DEVICE, NUMBER = "10.9.0.2", 8080, "eth0", 100
MODES = ("rss", "atr", "perfect")
# The client's program: it opens connections one after the other, and prints how many of them got the page.
CLIENT = f"""
import socket
def ask():
    with socket.create_connection(("{ADDRESS}", {PORT}), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"hello\\n")
print(sum(ask() for _ in range({NUMBER})))
"""


def check() -> str:
    """How many connections were local in each mode. Raises No where that is too few, or ``off`` leaves a change behind.

    Packets are sent only while a mode is on: without an XDP program, some flows of this emulated device get no answer.
    """
    output(["ethtool", "-L", DEVICE, "combined", str(len(CPUS))])
    before = _state()
    server = nginx("nginx", workers=len(CPUS), listen=f"; listen {ADDRESS}:{PORT}")
    with tempfile.TemporaryDirectory() as folder, served(server, Path(folder), preload=True) as one:
        wait_until_adopted(one.pid)
        said = [f"{mode} {_local_in(mode, one)}" for mode in MODES]
    if _state() != before:
        raise No(f"off did not put back what was there: {before} became {_state()}")
    return ", ".join([*said, "off"]) + f" (local of {NUMBER})"


def _local_in(mode: str, one: Served) -> int:
    output([*FASTSOCKET, "nic", DEVICE, mode])
    try:
        before = accepted(one.pid)
        answered = int(output(["ip", "netns", "exec", "client", sys.executable, "-c", CLIENT]))
        local, late = ((now - then).total() for now, then in zip(accepted(one.pid), before))
    finally:
        output([*FASTSOCKET, "nic", DEVICE, "off"])
    if not answered == local + late == NUMBER or local < MOSTLY:
        raise No(f"{mode}: {answered} of {NUMBER} answered, {local} of them local, {late} by neighbours")
    return local


def _state() -> list[str]:
    """The state of everything that a mode may change."""
    queues = sorted(Path(f"/sys/class/net/{DEVICE}/queues").glob("*/*ps_cpus"))
    link = subprocess.run(["ip", "-details", "link", "show", DEVICE], capture_output=True, text=True, check=True).stdout
    return [output(["ethtool", "-x", DEVICE]), *(path.read_text() for path in queues), link]


if __name__ == "__main__":
    answer(check)
