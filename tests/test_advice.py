"""What fastsocket measure advises: each rule has a source, and the advice fits what was measured."""

import re
from dataclasses import replace

import pytest

from fastsocket.measure.measured import Connections, Library, Measured, Namespace, Steering, Watching, Worker
from fastsocket.measure.rules import CONDITIONS, advice, switches
from tests.harness.commands import ROOT
from tests.harness.pages import anchors

# ---- the table of rules

SAYS = [
    pytest.param(says, source, id=f"{switch.name}-{number}")
    for switch in switches()
    for number, (says, source) in enumerate(
        [(switch.against, switch.against_source), *((rule.says, rule.source) for rule in switch.rules)]
    )
]
FIGURES = re.compile(r"\d\.\d{3}(?: \(\d\.\d{3}–\d\.\d{3}\))?")


@pytest.mark.parametrize("says, source", SAYS)
def test_every_rule_has_a_source_with_the_figures_that_the_rule_tells(says, source):
    page, _, anchor = source.partition("#")
    assert anchor in anchors(ROOT / page), source
    text = " ".join((ROOT / page).read_text().split())
    assert [figure for figure in FIGURES.findall(says) if figure not in text] == []


def test_each_condition_is_used_and_each_switch_has_a_last_word():
    used = {rule.when for switch in switches() for rule in switch.rules}
    assert used == set(CONDITIONS)


# ---- advice

SHORT_ONES = Connections(per_second=1000, reads=10_000, reads_each=1, local_percent=50, first_local_percent=50)
KEPT_OPEN = replace(SHORT_ONES, per_second=0, reads_each=None, first_local_percent=None)
NONE = Connections(per_second=0, reads=0, reads_each=None, local_percent=None, first_local_percent=None)
ETH0 = Steering(device="eth0", queues=2, rps=False, rfs=False, nic="off")
NGINX = Measured(
    pid=1,
    name="nginx",
    processes=3,
    threads=3,
    seconds=10,
    usable_cpus=[0, 1],
    watchers=2,
    passive=SHORT_ONES,
    active=NONE,
    queues=[],
    workers=[],
    cpus=[],
    others_percent=0,
    waited_percent=1,
    costs=None,
    watching=Watching(0.2, 0.5, 0.3),
    namespace=Namespace(1000, 0, 0, 0, time_wait=60_000),
    devices=[ETH0],
    library=Library(loaded=False, obstacle="", accelerated=False, parts=[]),
    missing=[],
    changed=False,
)
UNPINNED = Worker(1, 1, "0-1", [0], cpu_percent=90, waited_percent=0, connections_percent=100)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, {"the library": "try", "nic": "no", "Flow Deliver": "no", "answer with FIN": "try", "balance": "no"}),
        ({"waited_percent": 20}, {"balance": "try"}),
        ({"usable_cpus": [0]}, {"the library": "no", "balance": "no", "answer with FIN": "try"}),
        ({"watchers": 0}, {"the library": "no", "balance": "no"}),
        ({"watchers": None}, {"the library": "unknown"}),
        ({"watchers": 3, "usable_cpus": [0, 1, 2, 3], "workers": [UNPINNED]}, {"the library": "try"}),
        ({"library": Library(False, "static", False, [])}, {"the library": "no", "delayed ACK": "no", "nic": "no"}),
        ({"library": Library(True, "", True, ["delayed_ack"])}, {"the library": "on", "delayed ACK": "on"}),
        ({"library": Library(True, "", False, [])}, {"the library": "on", "balance": "no"}),
        ({"passive": replace(SHORT_ONES, reads=10)}, {"the library": "unknown", "nic": "unknown"}),
        ({"passive": replace(SHORT_ONES, first_local_percent=99)}, {"the library": "no", "balance": "no"}),
        ({"passive": KEPT_OPEN}, {"the library": "no", "nic": "try", "answer with FIN": "no", "delayed ACK": "no"}),
        ({"passive": KEPT_OPEN, "watchers": 1}, {"the library": "no", "nic": "try", "deferred accept": "no"}),
        ({"passive": KEPT_OPEN, "devices": []}, {"nic": "no"}),
        ({"devices": [replace(ETH0, nic="perfect")]}, {"nic": "on"}),
        ({"active": SHORT_ONES}, {"nic": "try", "Flow Deliver": "try"}),
        ({"active": replace(SHORT_ONES, local_percent=99)}, {"nic": "no", "Flow Deliver": "no"}),
        ({"active": KEPT_OPEN}, {"Flow Deliver": "no"}),
        ({"namespace": Namespace(1000, 0, 0, 0, time_wait=10)}, {"answer with FIN": "no", "delayed ACK": "try"}),
        ({"passive": None, "active": None}, {"the library": "unknown", "nic": "unknown", "answer with FIN": "unknown"}),
    ],
)
def test_advice_fits_what_was_measured(changes, expected):
    measured = replace(NGINX, **changes)
    said = {one.switch: one.verdict for one in advice(measured)}
    assert said == {**said, **expected}
    for one in advice(measured):
        assert bool(one.against) == bool(one.how) == (one.verdict == "try")
        assert "{" not in one.says + one.how
