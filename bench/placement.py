"""Which CPUs the server and the load generator get."""

from records.run import Placement


def place(core_counts: list[int], cpus: list[int], elsewhere: bool = False) -> list[Placement]:
    """A placement per core count, of CPUs in the order in which they are to be used: bench/threads.py, cores_first().

    The server has the first CPUs. The load generator has the same ones at every core count, so that the curve shows
    the server alone: those that no server uses where they are at least as many as the largest server has, else all.
    elsewhere: it has none of these.
    """
    largest = max(core_counts)
    others = cpus[largest:]
    load = [] if elsewhere else others if len(others) >= largest else cpus
    return [Placement(cores=cores, server_cpus=sorted(cpus[:cores]), load_cpus=sorted(load)) for cores in core_counts]
