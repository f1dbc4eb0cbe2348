"""The CPU that the port of an active connection stands for. connect() and all steering share this one function.

The slides, "Receive Flow Deliver": connect() on core c takes a source port p with c = hash(p), and
hash(p) = p & (ROUND_UP_POWER_OF_2(n) - 1); the answer's destination port tells the core. Where n is no power of 2, the
slides do not say where the values from n on go; here they start again at 0, so that every port has a core.
"""

from fastsocket.steering.cpus import machine_cpus


def port_mask(cpus: int) -> int:
    """ROUND_UP_POWER_OF_2(cpus) - 1."""
    return (1 << (cpus - 1).bit_length()) - 1


def core_of_port(port: int, cpus: int | None = None) -> int:
    """The number of the CPU that a port stands for.

    cpus: the machine's highest possible CPU number, plus 1 (default: this machine's).
    """
    count = cpus or machine_cpus()
    core = port & port_mask(count)
    return core if core < count else core - count
