"""Which CPUs are threads of one core, on machines that number them differently."""

from pathlib import Path

import pytest

from bench.experiment import thread_counts
from bench.placement import place
from bench.threads import cores_first

# thread_siblings_list by CPU, as these machines say.
NEXT_TO_EACH_OTHER = ["0-1", "0-1", "2-3", "2-3", "4-5", "4-5", "6-7", "6-7"]  # QEMU -smp 8,cores=4,threads=2
FIRST_THREADS_FIRST = ["0,4", "1,5", "2,6", "3,7"] * 2  # as most servers number them
SOME_WITHOUT = ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]  # small cores have one thread
NO_SIBLINGS = ["0", "1", "2", "3"]


@pytest.fixture
def machine(tmp_path):
    """Returns where a machine with these siblings would have them in sysfs."""

    def made(siblings: list[str]) -> Path:
        for cpu, said in enumerate(siblings):
            (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
            (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(f"{said}\n")
        return tmp_path

    return made


@pytest.mark.parametrize(
    "siblings, cpus, counts, one_of_each, order",
    [
        (NEXT_TO_EACH_OTHER, range(8), [4, 8], [0, 2, 4, 6], [0, 2, 4, 6, 1, 3, 5, 7]),
        (FIRST_THREADS_FIRST, range(8), [4, 8], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]),
        (SOME_WITHOUT, range(8), [6, 8], [0, 2, 4, 5, 6, 7], [0, 2, 4, 5, 6, 7, 1, 3]),
        (NEXT_TO_EACH_OTHER, [1, 2, 3, 7], [3, 4], [1, 2, 7], [1, 2, 7, 3]),
        (FIRST_THREADS_FIRST, [1, 2, 5, 7], [3, 4], [1, 2, 7], [1, 2, 7, 5]),
    ],
)
def test_the_server_gets_one_thread_of_each_core_before_any_second_one(
    machine, siblings, cpus, counts, one_of_each, order
):
    topology = machine(siblings)
    assert thread_counts(list(cpus), topology) == counts
    assert cores_first(cpus, topology) == order
    single, both = place(counts, order)
    assert single.server_cpus == one_of_each
    assert both.server_cpus == single.load_cpus == both.load_cpus == sorted(cpus)


@pytest.mark.parametrize(
    "siblings, cpus",
    [
        (NO_SIBLINGS, [0, 1, 2, 3]),
        (NO_SIBLINGS, [1, 3]),
        (NEXT_TO_EACH_OTHER, [0, 3, 4]),
        (FIRST_THREADS_FIRST, [2, 5]),
    ],
)
def test_where_no_core_has_two_of_the_cpus_there_is_nothing_to_compare(machine, siblings, cpus):
    topology = machine(siblings)
    assert thread_counts(cpus, topology) is None
    assert cores_first(cpus, topology) == cpus
