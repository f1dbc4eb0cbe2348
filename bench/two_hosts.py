"""A load generator on another machine: which experiments can have one, and the testbed for them."""

import socket
from ipaddress import AddressValueError, IPv4Address

from bench.experiment import UsageError
from records.run import Options
from topologies.pair import Pair
from topologies.tag import RunTag
from topologies.two_hosts import TwoHosts
from workloads import WORKLOADS
from workloads.variants import VARIANTS


def on_two_hosts(options: Options, client: str, address: str) -> Options:
    """The options for a run whose load comes from another machine.

    client: that machine, as ssh calls it. address: the address of this machine by which the client reaches the server.
    Raises UsageError if one of both is missing, if the address is not this machine's, or if the options ask for
    something that needs an emulated NIC, a network of its own, or a third host.
    """
    if not client or not address:
        raise UsageError("--client and --server-address go together: the client sends to that address of ours")
    _require_own(address)
    for what, names in _impossible(options).items():
        if names:
            raise UsageError(f"--client: {', '.join(names)} {what}")
    return options.model_copy(update={"client": client, "server_address": address, "nic": "none"})


def _impossible(options: Options) -> dict[str, list[str]]:
    """Why a client on another machine is impossible -> the names in the options to which that applies."""
    workloads = {name: WORKLOADS[name] for name in options.workloads}
    alone = options.one_queue or options.observes in ("walk", "calls")
    return {
        "needs a NIC or a network of its own: choose another experiment": [options.experiment] if alone else [],
        "needs a third host: choose others with --workload": [
            name for name, workload in workloads.items() if workload.topology is not Pair
        ],
        "is loaded from this machine alone: choose others with --workload": [
            name for name, workload in workloads.items() if not workload.loader
        ],
        "needs a NIC or a network of its own: choose others with --variant": [
            name for name in options.variants if VARIANTS[name].needs_own_network
        ],
    }


def _require_own(address: str) -> None:
    """Raises UsageError unless this is an IPv4 address of this machine."""
    try:
        with socket.socket() as ours:
            ours.bind((str(IPv4Address(address)), 0))
    except (AddressValueError, OSError):
        raise UsageError(
            f"--server-address {address}: no IPv4 address of this machine; ip -brief address shows those that it has"
        ) from None


def hosts_for(options: Options, tag: RunTag) -> TwoHosts:
    """The testbed of two machines for these options."""
    loaders = {WORKLOADS[name].loader: WORKLOADS[name].packages[WORKLOADS[name].loader] for name in options.workloads}
    return TwoHosts(tag, options.client, options.server_address, loaders)
