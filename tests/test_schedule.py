"""The order of trials is what makes the comparison fair."""

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.capacity import PART, with_capacities
from bench.placement import place
from bench.rate import NIGHT, offered, share_of_peak
from bench.schedule import schedule
from records.run import Options
from records.trials import CpuUse
from tests.harness.runs import a_run, a_trial
from workloads.process import WorkloadError

some_options = st.builds(
    Options,
    experiment=st.just("scalability"),
    workloads=st.just(["nginx"]),
    variants=st.lists(st.sampled_from(["base", "latest", "fastsocket"]), min_size=1, unique=True),
    cores=st.lists(st.integers(1, 64), min_size=1, max_size=5, unique=True),
    blocks=st.integers(1, 6),
    seconds=st.just(1),
    seed=st.integers(0, 2**32),
)


def runs_of(options):
    """The slots of each block at each core count, in order."""
    return [list(run) for _, run in groupby(schedule(options), key=lambda slot: (slot.block, slot.cores))]


def arm(slot):
    return slot.variant, slot.control


@given(some_options)
def test_every_run_of_a_block_reads_the_same_backwards(options):
    for run in runs_of(options):
        arms = [arm(slot) for slot in run]
        assert arms == arms[::-1]
        assert set(Counter(arms).values()) == {2}


@given(some_options)
def test_every_arm_appears_twice_per_block_and_core_count(options):
    expected = {(variant, False) for variant in options.variants}
    if "base" in options.variants:
        expected.add(("base", True))
    seen = Counter((slot.block, slot.cores, *arm(slot)) for slot in schedule(options))
    assert seen == Counter(
        {(block, cores, *one): 2 for block in range(options.blocks) for cores in options.cores for one in expected}
    )


@given(some_options)
def test_a_run_can_be_resumed_because_its_schedule_is_always_the_same(options):
    assert schedule(options) == schedule(options)
    assert [slot.index for slot in schedule(options)] == list(range(len(schedule(options))))


def test_orders_differ_between_blocks():
    options = Options(
        experiment="scalability",
        workloads=["nginx"],
        variants=["base", "latest", "fastsocket"],
        cores=[1],
        blocks=20,
        seconds=1,
        seed=1,
    )
    assert len({tuple(map(arm, run)) for run in runs_of(options)}) > 5


@given(st.integers(1, 64), st.data())
def test_the_load_generator_stays_on_the_same_cpus_along_a_curve(cpus, data):
    counts = data.draw(st.lists(st.integers(1, cpus), min_size=1, unique=True))
    placements = place(counts, list(range(cpus)))
    assert len({tuple(placement.load_cpus) for placement in placements}) == 1
    for placement, cores in zip(placements, counts):
        assert len(placement.server_cpus) == cores


@given(st.integers(1, 64), st.data())
def test_cpus_are_shared_only_where_there_are_not_enough(cpus, data):
    largest = data.draw(st.integers(1, cpus))
    (placement,) = place([largest], list(range(cpus)))
    enough = cpus - largest >= largest
    assert placement.shared == ([] if enough else placement.server_cpus)


def test_a_day_rises_and_falls_once_between_the_night_and_the_peak():
    day = [share_of_peak(minutes / 60) for minutes in range(24 * 60)]
    assert (min(day), max(day)) == (pytest.approx(NIGHT), pytest.approx(1))
    turns = sum((now - before) * (after - now) < 0 for before, now, after in zip(day, day[1:], day[2:]))
    assert turns == 2


def test_a_rate_is_per_core_and_follows_the_day():
    options = Options(
        experiment="production",
        workloads=["haproxy"],
        variants=["base"],
        cores=[2],
        blocks=24,
        seconds=1,
        seed=1,
        rates={"haproxy": 1000},
    )
    assert offered(options, "haproxy", 2, 0) == 2000
    assert offered(options, "nginx", 2, 0) is None
    day = options.model_copy(update={"day": True})
    assert offered(day, "haproxy", 2, 4) < offered(day, "haproxy", 2, 16) <= 2000
    share = options.model_copy(update={"share": 0.6})
    assert offered(share, "haproxy", 2, 0, {"haproxy/2": 500.0}) == 300


def test_a_capacity_is_the_rate_that_would_fill_the_servers_cpus_in_an_open_loop():
    asked = []

    def measured(slot, rate):
        asked.append(rate)
        if len(asked) == 1:
            raise WorkloadError("is run once more")
        busy = 0.8 * (rate or 0)  # CPU seconds, at 100 requests a second
        state = {"system": 0.0, "softirq": 0.0, "irq": 0.0, "iowait": 0.0, "steal": 0.0}
        return a_trial(slot, 100.0 if rate is None else rate, {}).model_copy(
            update={
                "cpu": [
                    CpuUse(cpu=0, user=busy, idle=100 - busy, **state),
                    CpuUse(cpu=1, user=100.0, idle=0.0, **state),  # not the server's
                ]
            }
        )

    run = a_run(cores=(1,))
    assert with_capacities(run, measured) == run and not asked
    shared = run.options.model_copy(update={"share": 0.3})
    run = with_capacities(run.model_copy(update={"options": shared}), measured)
    assert run.capacities == {"nginx/1": pytest.approx(125)}
    assert set(asked) == {None, 100 * PART}
    assert with_capacities(run, pytest.fail) == run
