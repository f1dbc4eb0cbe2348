"""Which CPUs the server and the load generator get."""

from records.run import Placement


def place(core_counts: list[int], cpus: list[int], elsewhere: bool = False) -> list[Placement]:
    """A placement for each core count.

    cpus: in the order in which they are to be used (cores_first() in bench/threads.py). The server gets the first of
    them. The load generator has the same CPUs at every core count, so that a curve shows the server alone. It gets the
    CPUs that the largest server leaves, if these are at least as many as the largest server has; else it gets all CPUs.
    elsewhere: the load generator is on another machine, and gets none of these CPUs.
    """
    largest = max(core_counts)
    others = cpus[largest:]
    load = [] if elsewhere else others if len(others) >= largest else cpus
    return [Placement(cores=cores, server_cpus=sorted(cpus[:cores]), load_cpus=sorted(load)) for cores in core_counts]
