"""Make a topology real: Mininet hosts, multi-queue links, and the settings that make a fair network of them."""

import logging
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

from mininet.link import Intf
from mininet.net import Mininet
from mininet.node import Host
from mininet.topo import Topo
from pyroute2 import IPRoute

from fastsocket.steering import Device, Link
from topologies.client import Client
from topologies.link import MultiQueueLink
from topologies.namespace import Namespace, inside, parent_of_tables
from topologies.tag import RunTag

# These offloads merge packets, which would spoil a test of packets per connection. Checksums are pointless on a veth,
# but cost the same for every variant, so they stay as the kernel sets them.
OFFLOADS_OFF = ("gro", "gso", "tso")

# Sysctls of each host's network namespace. The machine's own settings stay as they are.
SYSCTLS = {
    "net/core/somaxconn": "65535",
    "net/ipv4/tcp_max_syn_backlog": "65535",
    "net/ipv4/ip_local_port_range": "1024 65535",
    # The load generator may reuse a port after a second. Otherwise 64,000 ports would last for a few seconds only.
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv6/conf/default/accept_dad": "0",
}


class TestbedError(Exception):
    """The kernel or a tool refused a part of the network; the message says which."""

    exit_status = 3

    __test__ = False  # tells pytest that this is no test class, despite its name


class TaggedHost(Namespace, Host):
    """A Mininet host whose mount namespace carries the run's tag.

    table: how many entries the server's own hash table of established connections has; 0: it has none of its own.
    """

    def __init__(self, name: str, tag: RunTag, table: int, **params: Any):
        self._tag = tag
        with parent_of_tables(table) if table and name == "server" else nullcontext():
            super().__init__(name, **params)

    def mountPrivateDirs(self) -> None:
        super().mountPrivateDirs()
        refused = self.cmd(f"mount -t tmpfs -o size=4k {self._tag.tag} {self._tag.mount_point}")
        if refused:
            raise TestbedError(f"cannot mark host {self.name}: {refused.strip()}")


def _need_namespaces() -> None:
    """Raises TestbedError where no namespaces can be made. Mininet would wait for a host's shell for ever."""
    made = subprocess.run(["mnexec", "-n", "true"], capture_output=True, text=True)
    if made.returncode:
        raise TestbedError(f"no network namespace can be made: {made.stderr.strip()}; lab.py doctor says what it takes")


def _run(host: Host, command: list[str]) -> str:
    with inside(host):
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise TestbedError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Testbed:
    """A network made from a topology. Its hosts are attributes by name: ``testbed.client``, ``testbed.server``.

    Use it as a context manager: the end of the with block takes down all that it made. Raises TestbedError.
    """

    __test__ = False
    client: Client
    server: Host
    backend: Host  # only in the topology Proxy
    load_cpus: Sequence[int] = ()  # the client's CPUs, where the client is another machine
    told: Mapping[str, str] = {}  # the description of a client on another machine
    untold: Mapping[str, str] = {}  # metrics that cannot be measured in this network, each with the reason

    def __init__(self, topology: Topo, tag: RunTag, queues: int, table: int = 0):
        self._topology = topology
        self._table = table
        self._tag = tag
        self._queues = queues
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._build(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()

    def _build(self, cleanup: ExitStack) -> None:
        _need_namespaces()
        logging.getLogger("mininet").setLevel(logging.ERROR)
        Mininet.inited = True  # else Mininet changes limits and sysctls of the whole machine (fixLimits) for good
        self._net = Mininet(
            topo=self._topology,
            host=partial(TaggedHost, tag=self._tag, table=self._table),
            link=partial(MultiQueueLink, queues=self._queues),
            controller=None,
            autoSetMacs=True,
            build=False,
        )
        cleanup.callback(self._net.stop)
        self._net.build()
        for host in self._net.hosts:
            setattr(self, host.name, host)
            self._set_sysctls(host, SYSCTLS)
        self._require_table()
        for link in self._net.links:
            self._settle(link.intf1, link.intf2)
            self._settle(link.intf2, link.intf1)

    def _require_table(self) -> None:
        """Raises TestbedError where the server lacks its own table of established connections.

        Where memory is short, the kernel makes the server share the machine's table.
        """
        with inside(self.server):
            entries = int(Path("/proc/sys/net/ipv4/tcp_ehash_entries").read_text()) if self._table else 0
        if entries != self._table:
            raise TestbedError(f"no table of {self._table} established connections could be had")

    @staticmethod
    def _set_sysctls(host: Host, sysctls: Mapping[str, str]) -> dict[str, str]:
        """Set sysctls in a host's network namespace. Returns their values before."""
        with inside(host):
            files = {name: Path("/proc/sys", name) for name in sysctls}
            before = {name: file.read_text() for name, file in files.items()}
            for name, file in files.items():
                file.write_text(sysctls[name])
        return before

    @contextmanager
    def settings(self, host: Host, sysctls: Mapping[str, str]) -> Iterator[None]:
        """Change sysctls of a host's network namespace for the with block."""
        before = self._set_sysctls(host, sysctls)
        try:
            yield
        finally:
            self._set_sysctls(host, before)

    def _settle(self, interface: Intf, peer: Intf) -> None:
        """Set an interface up: offloads off, an IPv6 address, and permanent neighbour entries for its peer."""
        settings = [word for offload in OFFLOADS_OFF for word in (offload, "off")]
        _run(interface.node, ["ethtool", "-K", interface.name, *settings])
        with inside(interface.node), IPRoute() as netlink:
            index = netlink.link_lookup(ifname=interface.name)[0]
            netlink.addr("add", index=index, address=ipv6_address(interface), prefixlen=64, flags=0x02)  # IFA_F_NODAD
            for address in (peer.IP(), ipv6_address(peer)):
                netlink.neigh("replace", ifindex=index, dst=address, lladdr=peer.MAC(), state=0x80)  # NUD_PERMANENT

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts by name."""
        return {host.name: host for host in self._net.hosts}

    def links_to(self, host: Host) -> list[Link]:
        """Every link of the host, with the host's end as the receiver."""
        ends = [(link.intf1, link.intf2) for link in self._net.links]
        return [
            Link(device(far), device(near))
            for one, other in ends
            for far, near in ((one, other), (other, one))
            if near.node is host
        ]

    def command(self, host: Client, cpus: list[int], argv: list[str]) -> list[str]:
        """The command line that runs argv inside the host, pinned to these CPUs."""
        return host.command(cpus, argv)


def ipv6_address(interface: Intf) -> str:
    """An interface's IPv6 address. Each link has a network of its own; the numbers are those of the IPv4 address."""
    *_, link, number = interface.IP().split(".")
    return f"fd00:0:0:{link}::{number}"


def device(interface: Intf) -> Device:
    """A Mininet interface as a device for steering."""
    return Device(interface.name, interface.node.pid)
